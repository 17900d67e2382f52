package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
)

// ClientsArg makes the program the clients of an experiment: the argument after
// it says which, what comes on standard input what to do.
const ClientsArg = "clients"

// RunClients is the other process of an experiment. It reads orders and writes
// results, JSON both.
func RunClients(ctx context.Context, role string, in io.Reader, out io.Writer) error {
	orders, results := json.NewDecoder(in), json.NewEncoder(out)
	switch role {
	case "callers":
		return callers(ctx, orders, results)
	case "watchers":
		return watchers(ctx, orders, results)
	}
	return fmt.Errorf("run clients: %q is not known", role)
}

// clients are a process of clients, seen from the one with the servers.
type clients struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	in    *json.Encoder
	out   *json.Decoder
}

// startClients runs this program again.
func startClients(ctx context.Context, role string) (*clients, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, program, ClientsArg, role) //nolint:gosec // it is this one
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start clients: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start clients: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start clients: %w", err)
	}
	return &clients{cmd, stdin, json.NewEncoder(stdin), json.NewDecoder(bufio.NewReader(stdout))}, nil
}

// ask gives an order and waits for its result.
func (c *clients) ask(order, result any) error {
	if err := c.in.Encode(order); err != nil {
		return fmt.Errorf("order clients: %w", err)
	}
	if err := c.out.Decode(result); err != nil {
		return fmt.Errorf("read clients' result: %w", err)
	}
	return nil
}

// stop ends the process, which ends when there are no more orders.
func (c *clients) stop() error {
	if err := c.stdin.Close(); err != nil {
		return fmt.Errorf("stop clients: %w", err)
	}
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("stop clients: %w", err)
	}
	return nil
}

// raw leaves messages as they are on the wire, so that clients cost as little as
// possible, and the same whatever the message.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("marshal %T: not bytes", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*b)}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("unmarshal %T: not bytes", v)
	}
	*b = append((*b)[:0], make([]byte, data.Len())...)
	data.CopyTo(*b)
	return nil
}

func connect(address string, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, append(more, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(64<<20), grpc.WaitForReady(true)))...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return conn, nil
}
