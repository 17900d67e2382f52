package doors

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/xds"

	"github.com/buddyring/buddyring/client"
	"github.com/buddyring/buddyring/internal/lab"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// The clients know all routers. Their connections to servers are made on the
// clients' host, and kept alive from one request to the next.

// library is a configuration of the Go library.
func (r *run) library() client.Config {
	cfg := client.Config{Pool: lab.Pool, Credentials: insecure.NewCredentials()}
	for i := range routers {
		cfg.Routers = append(cfg.Routers, r.RouterAddress(i))
	}
	return cfg
}

// overLibraryGRPC calls as buddyring:///POOL.
func (r *run) overLibraryGRPC(ctx context.Context) error {
	return r.callAt(ctx, GoGRPC, "buddyring:///"+lab.Pool+"?endpoint=grpc", client.DialOption(r.library()))
}

// overXDS calls as xds:///POOL, by grpc-go's own client.
func (r *run) overXDS(ctx context.Context) error {
	var servers []any
	for i := range routers {
		servers = append(servers, map[string]any{
			"server_uri": r.RouterAddress(i), "channel_creds": []any{map[string]any{"type": "insecure"}},
			"server_features": []string{"xds_v3", "ignore_resource_deletion"},
		})
	}
	bootstrap, err := json.Marshal(map[string]any{"xds_servers": servers, "node": map[string]any{"id": "lab"}})
	if err != nil {
		return fmt.Errorf("encode bootstrap: %w", err)
	}
	resolver, err := xds.NewXDSResolverWithConfigForTesting(bootstrap)
	if err != nil {
		return fmt.Errorf("make xDS client: %w", err)
	}
	return r.callAt(ctx, XDS, "xds:///"+lab.Pool+"/grpc", grpc.WithResolvers(resolver))
}

// callAt calls a target of gRPC.
func (r *run) callAt(ctx context.Context, door, target string, option grpc.DialOption) error {
	conn, err := grpc.NewClient(target, option, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return r.clients().Dial(ctx, "tcp", address)
		}))
	if err != nil {
		return fmt.Errorf("dial %s: %w", target, err)
	}
	r.atEnd(conn.Close)
	return r.begin(ctx, door, func(int) ask {
		return func(ctx context.Context) (time.Time, error) {
			begun := time.Now()
			ctx, cancel := context.WithTimeout(ctx, requestTime)
			defer cancel()
			_, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
			return begun, err
		}
	})
}

// overLibraryHTTP asks through the library's transport.
func (r *run) overLibraryHTTP(ctx context.Context) error {
	pool, err := client.Open(r.library()) //nolint:contextcheck // it lives until Close
	if err != nil {
		return err
	}
	r.atEnd(pool.Close)
	web := &http.Client{Timeout: requestTime, Transport: &client.Transport{
		Pool: pool, Base: keepAlive(r.clients().Dial),
	}}
	return r.begin(ctx, GoHTTP, func(int) ask { return getFrom(web, lab.Pool) })
}

// overHAProxy asks HAProxy, which follows the routers' DNS.
func (r *run) overHAProxy(ctx context.Context) error {
	front, err := r.startHAProxy()
	if err != nil {
		return err
	}
	web := &http.Client{Timeout: requestTime, Transport: keepAlive(func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", front)
	})}
	return r.begin(ctx, HAProxy, func(int) ask { return getFrom(web, lab.Pool) })
}

// overPick asks a router for each request, and the next one where one does not
// answer.
func (r *run) overPick(ctx context.Context) error {
	web := &http.Client{Timeout: requestTime, Transport: keepAlive(r.clients().Dial)}
	return r.begin(ctx, Pick, func(n int) ask {
		return func(ctx context.Context) (time.Time, error) {
			var errs []error
			for range routers {
				address, err := r.pick(ctx, n%routers)
				if err == nil {
					chosen := time.Now()
					return chosen, get(ctx, web, address)
				}
				n++
				errs = append(errs, err)
			}
			return time.Now(), errors.Join(errs...)
		}
	})
}

func (r *run) pick(ctx context.Context, router int) (address string, err error) {
	ctx, cancel := context.WithTimeout(ctx, pickTime)
	defer cancel()
	answer, err := r.Router(router).Pick(ctx, &routerv1.PickRequest{Pool: lab.Pool, Endpoint: "http"})
	if err != nil {
		return "", fmt.Errorf("pick from router %d: %w", router+1, err)
	}
	return answer.GetChoices()[0].GetAddress(), nil
}

// keepAlive is a transport with a connection for each caller to each server.
func keepAlive(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Transport {
	return &http.Transport{DialContext: dial, MaxIdleConnsPerHost: callers}
}

// getFrom asks one host.
func getFrom(web *http.Client, host string) ask {
	return func(ctx context.Context) (time.Time, error) {
		begun := time.Now()
		return begun, get(ctx, web, host)
	}
}

// get makes a request whose answer is to be whole and good.
func get(ctx context.Context, web *http.Client, host string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/", nil)
	if err != nil {
		return err
	}
	res, err := web.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("get http://%s/: %s", host, res.Status)
	}
	return errors.Join(err, res.Body.Close())
}
