package checker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/buddyring/buddyring/agent/shell"
)

// maxHeaderBytes bounds what a service may answer.
const maxHeaderBytes = 64 << 10

// connect passes when a TCP connection is accepted.
func connect(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		d := net.Dialer{KeepAlive: -1}
		conn, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		_ = conn.Close() // that it was accepted is all
		return nil
	}
}

// get passes at a status of 2xx or 3xx, on a new connection each time. It does
// not verify the server's certificate: it asks its own service, mostly by an
// address for which no certificate is made, and believes no more of the answer
// than its status.
func get(u *url.URL) func(context.Context) error {
	return func(ctx context.Context) error {
		transport := &http.Transport{
			DisableKeepAlives: true, MaxResponseHeaderBytes: maxHeaderBytes,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		}
		defer transport.CloseIdleConnections()
		client := http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return err
		}
		req.Header.Set("User-Agent", "buddyring-agent")
		resp, err := client.Do(req)
		if err != nil {
			if outer, ok := errors.AsType[*url.Error](err); ok {
				return outer.Err // without the URL, which is the check's name
			}
			return err
		}
		_ = resp.Body.Close() // its status is all
		if resp.StatusCode < 200 || resp.StatusCode > 399 {
			return errors.New(resp.Status)
		}
		return nil
	}
}

// askHealth passes when the standard gRPC health service says SERVING, in
// plaintext on a new connection each time.
func askHealth(address, service string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxHeaderBytes)))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }() // nothing is under way
		resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			return errors.New(status.Convert(err).Message())
		}
		if s := resp.GetStatus(); s != healthpb.HealthCheckResponse_SERVING {
			return fmt.Errorf("it says %s", s)
		}
		return nil
	}
}

// execute passes when the command ends with exit status 0.
func execute(line string) func(context.Context) error {
	return func(ctx context.Context) error {
		output, err := shell.Run(ctx, line, nil)
		if last := output[strings.LastIndexByte(output, '\n')+1:]; err != nil && last != "" {
			return fmt.Errorf("%w: %s", err, last)
		}
		return err
	}
}
