package server

import (
	"context"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// door finds who serves a method at present, or says why nobody does.
type door func(ctx context.Context, method string) (any, error)

// behind returns a service whose calls go to whoever serves them when they are
// made.
func behind(service grpc.ServiceDesc, find door) *grpc.ServiceDesc {
	service.Methods = slices.Clone(service.Methods)
	for i := range service.Methods {
		name, call := service.Methods[i].MethodName, service.Methods[i].Handler
		full := "/" + service.ServiceName + "/" + name
		service.Methods[i].Handler = func(
			_ any, ctx context.Context, decode func(any) error, chain grpc.UnaryServerInterceptor,
		) (any, error) {
			present, err := find(ctx, name)
			if err != nil {
				refuse := func(context.Context, any) (any, error) { return nil, err }
				return chain(ctx, nil, &grpc.UnaryServerInfo{FullMethod: full}, refuse)
			}
			return call(present, ctx, decode, chain)
		}
	}
	service.Streams = slices.Clone(service.Streams)
	for i := range service.Streams {
		name, call := service.Streams[i].StreamName, service.Streams[i].Handler
		service.Streams[i].Handler = func(_ any, stream grpc.ServerStream) error {
			present, err := find(stream.Context(), name)
			if err != nil {
				return err
			}
			return call(present, stream)
		}
	}
	return &service
}

func (s *Server) agentDoor(context.Context, string) (any, error) {
	if t := s.term.Load(); t != nil {
		return t.agents, nil
	}
	return nil, s.notLeader()
}

func (s *Server) memberDoor(context.Context, string) (any, error) {
	if t := s.term.Load(); t != nil {
		return t.members, nil
	}
	return nil, s.notLeader()
}

// adminDoor lets a standby answer what the table tells.
func (s *Server) adminDoor(ctx context.Context, method string) (any, error) {
	if t := s.term.Load(); t != nil {
		return t.admin, nil
	}
	if !slices.Contains(readFromTable(), method) {
		return nil, s.notLeader()
	}
	told := slices.Contains(toldWithoutTable(), method)
	admin, age, err := s.shelf.service(ctx, told)
	if admin == nil || err != nil && !told {
		return nil, err
	}
	stale := metadata.Pairs(rpc.StaleHeader, strconv.FormatFloat(age.Seconds(), 'f', 3, 64))
	return admin, grpc.SetHeader(ctx, stale)
}

// readFromTable are the methods of AdminService that a standby answers.
func readFromTable() []string {
	return append(toldWithoutTable(), "ListPools", "GetPool", "ListServers", "GetServer", "ListIntents", "GetRing",
		"ListEvents", "ExplainServer", "ListRouters")
}

// toldWithoutTable are those of them that it answers also when it cannot read
// the table.
func toldWithoutTable() []string { return []string{"GetStatus", "ListAlarms"} }

// StepDown ends the term and gives the lease back.
func (a *adminService) StepDown(ctx context.Context, req *pb.StepDownRequest) (*pb.StepDownResponse, error) {
	if err := checkStepDown(req, a.lead.epoch); err != nil {
		return nil, err
	}
	res := &pb.StepDownResponse{Epoch: uint64(a.lead.epoch)}
	if req.GetValidateOnly() {
		return res, nil
	}
	// Without the database nobody else could take the lead.
	if err := a.term.tenure.check(time.Now()); err != nil {
		return nil, err
	}
	a.term.deps.Logger.InfoContext(ctx, "asked to step down", "actor", peerOf(ctx).actor(), "reason", req.GetReason())
	a.term.over.end(errSteppedDown)
	select {
	case <-a.term.released.done():
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(callTime):
		return nil, errCallTime
	}
	if err := a.term.released.reason(); err != nil {
		return nil, err
	}
	return res, nil
}
