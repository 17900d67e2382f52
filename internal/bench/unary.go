package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// Pick and echo are asked in turns, so often and so briefly that other work on
// the machine hits both alike.
const (
	callTurns       = 30
	callTurn        = 400 * time.Millisecond
	callConnections = 4
	callsAtOnce     = 16 // per connection
	pickMethod      = "/buddyring.router.v1.RouterService/Pick"
	echoMethod      = "/bench.Echo/Echo"
)

// callOrder asks for one turn.
type callOrder struct {
	Address, Method string
	// Requests are made in turns.
	Requests [][]byte
	For      time.Duration
}

// callResult is what a turn has measured, in seconds.
type callResult struct{ Calls, Rate, P50, P99 float64 }

// startEcho runs a bare gRPC server that answers each request with itself.
func startEcho(ctx context.Context) (address string, stop func() error, err error) {
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("listen for echo: %w", err)
	}
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench.Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Echo", Handler: func(
			_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor,
		) (any, error) {
			req := new(routerv1.PickRequest)
			return req, decode(req)
		}}},
	}, nil)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(lis) }()
	return lis.Addr().String(), func() error {
		s.Stop()
		return <-ended
	}, nil
}

func unaryPicks(ctx context.Context) (_ []Row, err error) {
	r, err := startRouter(ctx, 1000)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	echo, stopEcho, err := startEcho(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stopEcho()) }()
	c, err := startClients(ctx, "callers")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	var rows []Row
	var byKey []*routerv1.PickRequest
	for _, key := range someKeys() {
		byKey = append(byKey, &routerv1.PickRequest{Pool: pool, Policy: routerv1.Policy_POLICY_MAGLEV, Key: key})
	}
	for _, ask := range []struct {
		name     string
		requests []*routerv1.PickRequest
	}{{"p2c", []*routerv1.PickRequest{{Pool: pool}}}, {"maglev", byKey}} {
		row, err := compare(c, ask.name, ask.requests, [2]callOrder{
			{Address: echo, Method: echoMethod, For: callTurn}, {Address: r.address, Method: pickMethod, For: callTurn},
		})
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// compare gives both the same requests in turns: echo first.
func compare(c *clients, name string, requests []*routerv1.PickRequest, orders [2]callOrder) (Row, error) {
	encoded := make([][]byte, len(requests))
	for i, req := range requests {
		var err error
		if encoded[i], err = proto.Marshal(req); err != nil {
			return Row{}, fmt.Errorf("encode request: %w", err)
		}
	}
	var rates, p99s [2][]float64
	var ratios, tails []float64
	var cost [2]float64
	for turn := range callTurns {
		var results [2]callResult
		for i, order := range orders {
			order.Requests = encoded
			before, err := processorTime()
			if err != nil {
				return Row{}, err
			}
			if err := c.ask(order, &results[i]); err != nil {
				return Row{}, err
			}
			after, err := processorTime()
			if err != nil {
				return Row{}, err
			}
			if calls := results[i].Calls; turn > 0 && calls > 0 {
				cost[i] += (after - before) / calls / (callTurns - 1)
			}
			// The first turn opens the connections.
			if turn > 0 {
				rates[i], p99s[i] = append(rates[i], results[i].Rate), append(p99s[i], results[i].P99)
			}
		}
		if turn > 0 {
			ratios = append(ratios, results[1].Rate/results[0].Rate)
			tails = append(tails, results[1].P99/results[0].P99)
		}
	}
	rate, tail := median(ratios), median(tails)
	return Row{
		ID: "R2", Experiment: fmt.Sprintf("Pick (%s, 1,000 servers) beside a bare echo, 64 calls at once", name),
		Target: "≥ 0.90 of its rate, p99 ≤ 1.15 of its", Met: rate >= 0.90 && tail <= 1.15,
		Measured: fmt.Sprintf("rate %.2f (%.0f/s of %.0f/s), p99 %.2f (%s of %s), processor time %.2f (%.1f µs of %.1f µs)",
			rate, median(rates[1]), median(rates[0]), tail, milliseconds(median(p99s[1])), milliseconds(median(p99s[0])),
			cost[1]/cost[0], cost[1]*1e6, cost[0]*1e6),
		Figures: map[string]float64{
			"rate_ratio": rate, "p99_ratio": tail, "pick_rate": median(rates[1]), "echo_rate": median(rates[0]),
			"pick_processor_seconds": cost[1], "echo_processor_seconds": cost[0],
			"pick_p99_seconds": median(p99s[1]), "echo_p99_seconds": median(p99s[0]),
		},
	}, nil
}

// callers call, in the other process.
func callers(ctx context.Context, orders *json.Decoder, results *json.Encoder) error {
	connections := map[string][]*grpc.ClientConn{}
	for {
		var o callOrder
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read order: %w", err)
		}
		for len(connections[o.Address]) < callConnections {
			conn, err := connect(o.Address)
			if err != nil {
				return err
			}
			connections[o.Address] = append(connections[o.Address], conn)
		}
		result, err := call(ctx, connections[o.Address], o)
		if err != nil {
			return err
		}
		if err := results.Encode(result); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	}
}

// call keeps calls under way on all connections for the time of the order.
func call(ctx context.Context, connections []*grpc.ClientConn, o callOrder) (callResult, error) {
	began := time.Now()
	end := began.Add(o.For)
	times := make([][]float64, len(connections)*callsAtOnce)
	var g errgroup.Group
	for i := range times {
		conn := connections[i%len(connections)]
		g.Go(func() error {
			var answer []byte
			next := i
			for start := time.Now(); start.Before(end); next++ {
				if err := conn.Invoke(ctx, o.Method, &o.Requests[next%len(o.Requests)], &answer); err != nil {
					return fmt.Errorf("call %s: %w", o.Method, err)
				}
				now := time.Now()
				times[i] = append(times[i], now.Sub(start).Seconds())
				start = now
			}
			return nil
		})
	}
	err := g.Wait()
	took := time.Since(began).Seconds()
	var all []float64
	for _, t := range times {
		all = append(all, t...)
	}
	return callResult{Calls: float64(len(all)), Rate: float64(len(all)) / took, P50: median(all), P99: quantile(all, 0.99)}, err
}
