package rpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// memory dials a bufconn listener.
func memory(t *testing.T, lis *bufconn.Listener) *grpc.ClientConn {
	t.Helper()
	return dial(t, rpc.DialConfig{
		Addresses: []string{"memory:1"},
		Dialer:    func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) },
	})
}

func TestHealthIsNotServingUntilSaid(t *testing.T) {
	t.Parallel()
	lis := bufconn.Listen(1 << 16)
	s := serve(t, rpc.ServerConfig{}, &service{}, lis)
	client := healthv1.NewHealthClient(memory(t, lis))
	check := func(service string) healthv1.HealthCheckResponse_ServingStatus {
		t.Helper()
		res, err := client.Check(soon(t), &healthv1.HealthCheckRequest{Service: service})
		must(t, err)
		return res.GetStatus()
	}
	if got := check(""); got != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("at first: %v", got)
	}
	s.SetServing("", true)
	s.SetServing("a.Service", true)
	for _, service := range []string{"", "a.Service"} {
		if got := check(service); got != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v", service, got)
		}
	}
}

func TestServeEndsStubbornHandlers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lis := bufconn.Listen(1 << 16)
		started, handlerEnded := make(chan struct{}), false
		s := rpc.NewServer(rpc.ServerConfig{Credentials: newCredentials(t, rpc.Security{}), Logger: silent})
		routerv1.RegisterRouterServiceServer(s.GRPC(), &service{watch: func(stream grpc.ServerStream) error {
			close(started)
			<-stream.Context().Done()
			time.Sleep(500 * time.Millisecond)
			handlerEnded = true
			return nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, lis) }()
		conn := memory(t, lis)
		_, err := routerv1.NewRouterServiceClient(conn).Watch(t.Context(), &routerv1.WatchRequest{})
		must(t, err)
		<-started
		begin := time.Now()
		cancel()
		must(t, <-done)
		if took := time.Since(begin); took < 2*time.Second || took > 3*time.Second {
			t.Errorf("took %v", took)
		}
		if !handlerEnded {
			t.Error("Serve returned before its handlers")
		}
	})
}

func TestServeLetsCallsFinish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lis := bufconn.Listen(1 << 16)
		started := make(chan struct{})
		s := rpc.NewServer(rpc.ServerConfig{Credentials: newCredentials(t, rpc.Security{}), Logger: silent})
		routerv1.RegisterRouterServiceServer(s.GRPC(), &service{pick: func(context.Context) error {
			close(started)
			time.Sleep(time.Second)
			return nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, lis) }()
		client := routerv1.NewRouterServiceClient(memory(t, lis))
		go func() {
			<-started
			cancel()
		}()
		_, err := client.Pick(t.Context(), &routerv1.PickRequest{})
		must(t, err)
		must(t, <-done)
	})
}

func TestServeTellsAFailingListener(t *testing.T) {
	t.Parallel()
	s := rpc.NewServer(rpc.ServerConfig{Credentials: newCredentials(t, rpc.Security{}), Logger: silent})
	lis := bufconn.Listen(1)
	must(t, lis.Close())
	if err := s.Serve(t.Context(), lis); err == nil {
		t.Error("no error")
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	client := pair(t, rpc.ServerConfig{MaxRecvBytes: 1024}, &service{pick: func(context.Context) error { return nil }})
	_, err := client.Pick(soon(t), &routerv1.PickRequest{Pool: strings.Repeat("x", 2048)})
	if !errors.Is(err, member.ErrExhausted) {
		t.Errorf("a message that is too large: %v", err)
	}
	big := metadata.AppendToOutgoingContext(soon(t), "x", strings.Repeat("x", 16<<10))
	if _, err := client.Pick(big, &routerv1.PickRequest{}); err == nil {
		t.Error("headers of 16 KiB were taken")
	}
	_, err = client.Pick(soon(t), &routerv1.PickRequest{Pool: strings.Repeat("x", 512)})
	must(t, err)
}

func TestSlowHandshakeIsCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t)
		for _, security := range []rpc.Security{{}, ca.issue("c1", coordinatorURI)} {
			lis := bufconn.Listen(1 << 16)
			serve(t, rpc.ServerConfig{Credentials: newCredentials(t, security)}, &service{}, lis)
			raw, err := lis.DialContext(t.Context())
			must(t, err)
			start := time.Now()
			_, err = io.Copy(io.Discard, raw)
			must(t, err)
			if took := time.Since(start); took > 11*time.Second {
				t.Errorf("took %v", took)
			}
			must(t, raw.Close())
		}
	})
}

func TestReflection(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{true, false} {
		lis := bufconn.Listen(1 << 16)
		serve(t, rpc.ServerConfig{Reflection: on}, &service{}, lis)
		stream, err := reflectionv1.NewServerReflectionClient(memory(t, lis)).ServerReflectionInfo(soon(t))
		must(t, err)
		_ = stream.Send(&reflectionv1.ServerReflectionRequest{
			MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
		})
		_, err = stream.Recv()
		if (err == nil) != on {
			t.Errorf("reflection %v: %v", on, err)
		}
	}
}

// What reflection says of a service has its comments.
func TestReflectionHasComments(t *testing.T) {
	t.Parallel()
	lis := bufconn.Listen(1 << 16)
	serve(t, rpc.ServerConfig{Reflection: true}, &service{}, lis)
	stream, err := reflectionv1.NewServerReflectionClient(memory(t, lis)).ServerReflectionInfo(soon(t))
	must(t, err)
	must(t, stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{
			FileContainingSymbol: routerv1.RouterService_ServiceDesc.ServiceName,
		},
	}))
	answer, err := stream.Recv()
	must(t, err)
	var file descriptorpb.FileDescriptorProto
	must(t, proto.Unmarshal(answer.GetFileDescriptorResponse().GetFileDescriptorProto()[0], &file))
	if file.GetName() != routerv1.File_buddyring_router_v1_router_proto.Path() || len(file.GetSourceCodeInfo().GetLocation()) == 0 {
		t.Errorf("%s, %d locations", file.GetName(), len(file.GetSourceCodeInfo().GetLocation()))
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	svc := &service{
		pick:  func(context.Context) error { return member.ErrNotFound },
		watch: func(grpc.ServerStream) error { return nil },
	}
	for range 2 {
		client := pair(t, rpc.ServerConfig{Registry: reg}, svc)
		_, err := client.Pick(soon(t), &routerv1.PickRequest{})
		if !errors.Is(err, member.ErrNotFound) {
			t.Fatal(err)
		}
		watch, err := client.Watch(soon(t), &routerv1.WatchRequest{})
		must(t, err)
		if err := ended(watch); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	families, err := reg.Gather()
	must(t, err)
	timed, handled := map[string]uint64{}, map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			switch f.GetName() {
			case "buddyring_grpc_server_handling_seconds":
				timed[labels["grpc_method"]] += m.GetHistogram().GetSampleCount()
			case "buddyring_grpc_server_handled_total":
				handled[labels["grpc_method"]+" "+labels["grpc_code"]] += m.GetCounter().GetValue()
			}
		}
	}
	if timed["Pick"] != 2 || timed["Watch"] != 0 {
		t.Errorf("timed: %v", timed)
	}
	if handled["Pick NotFound"] != 2 || handled["Watch OK"] != 2 {
		t.Errorf("handled: %v", handled)
	}
}
