package testdb

import (
	"context"
	"fmt"
	"syscall"
)

// New returns a server for a program that is no test, which ends it with Close.
func New(options ...string) (*Server, error) { return start(options...) }

// Close ends the server and removes its data.
func (s *Server) Close() error { return s.close() }

// Do runs a statement as the server's administrator.
func (s *Server) Do(ctx context.Context, statement string) error { return s.exec(ctx, statement) }

// Crash ends the server by SIGKILL and keeps its data.
func (s *Server) Crash() error { return s.end(true) }

// Recover starts a server that has crashed on the data it left and waits until
// it answers.
func (s *Server) Recover() error { return s.run() }

// Pid is the process of the running server.
func (s *Server) Pid() int { return s.pid }

// Pause stops the server where it is.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Continue lets a paused server go on.
func (s *Server) Continue() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	if err := syscall.Kill(s.pid, sig); err != nil {
		return fmt.Errorf("signal mariadbd: %w", err)
	}
	return nil
}
