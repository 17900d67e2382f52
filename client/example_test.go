package client_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/buddyring/buddyring/client"
)

func ExampleDialOption() {
	shop := openWeb()
	defer shop.close()
	routers := shop.routers

	conn, err := grpc.NewClient("buddyring:///web?endpoint=grpc",
		client.DialOption(client.Config{Routers: routers, Credentials: routerCreds}),
		grpc.WithTransportCredentials(serverCreds))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	res, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(res.GetStatus())
	// Output: SERVING
}

func ExampleConfig_serviceConfig() {
	shop := openWeb()
	defer shop.close()
	routers := shop.routers

	cfg := client.Config{
		Routers: routers, Credentials: routerCreds,
		ServiceConfig: `{
			"loadBalancingConfig": [{"buddyring": {"policy": "round_robin"}}],
			"methodConfig": [{
				"name": [{"service": "grpc.health.v1.Health"}],
				"timeout": "2s",
				"retryPolicy": {
					"maxAttempts": 3, "initialBackoff": "0.05s", "maxBackoff": "0.5s",
					"backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]
				}
			}]
		}`,
	}
	conn, err := grpc.NewClient("buddyring:///web?endpoint=grpc",
		client.DialOption(cfg), grpc.WithTransportCredentials(serverCreds))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	res, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(res.GetStatus())
	// Output: SERVING
}

func ExampleTransport() {
	shop := openWeb()
	defer shop.close()
	routers := shop.routers

	pool, err := client.Open(client.Config{Pool: "web", Routers: routers, Credentials: routerCreds})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	web := &http.Client{Transport: &client.Transport{Pool: pool}, Timeout: 10 * time.Second}
	defer web.CloseIdleConnections()

	res, err := web.Get("http://shop.example.org/apples")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(string(body))
	// Output: shop.example.org sells /apples
}

func ExamplePool_Pick() {
	shop := openWeb()
	defer shop.close()
	routers := shop.routers

	pool, err := client.Open(client.Config{Pool: "web", Routers: routers, Credentials: routerCreds})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := pool.Wait(ctx); err != nil {
		fmt.Println(err)
		return
	}

	server, err := pool.Pick(client.Request{Exclude: []string{"web-1"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Done() // when the work at server.Address has ended
	fmt.Println(server.Server.ID)
	// Output: web-2
}

func ExamplePool_Watch() {
	shop := openWeb()
	defer shop.close()
	routers := shop.routers

	pool, err := client.Open(client.Config{Pool: "web", Routers: routers, Credentials: routerCreds})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for view := range pool.Watch(ctx) {
		for _, server := range view.Servers {
			fmt.Println(server.ID, server.State)
		}
		break // or go on, and hear of every change
	}
	// Output:
	// web-1 active
	// web-2 active
}
