package netlab

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// ownNamespace names the network namespace of the calling thread.
const ownNamespace = "/proc/thread-self/ns/net"

// namespace is a network namespace, held by a descriptor.
type namespace struct {
	file *os.File
}

// newNamespace makes a network namespace with its loopback still down.
func newNamespace() (*namespace, error) {
	var ns *namespace
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		file, err := os.Open(ownNamespace)
		if err != nil {
			return fmt.Errorf("open network namespace: %w", err)
		}
		ns = &namespace{file: file}
		return nil
	})
	return ns, err
}

// do runs fn on a thread inside the namespace. Sockets that fn opens and
// processes that it starts stay there. Goroutines that fn starts do not run in
// the namespace.
func (n *namespace) do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return fn()
	})
}

func (n *namespace) setSysctl(key, value string) error {
	path := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
	return n.do(func() error { return os.WriteFile(path, []byte(value), 0) })
}

// withoutIPv6 keeps interfaces that come from having IPv6, which talks a lot by
// itself, and to everybody on the switch. Where /proc/sys is read-only it talks.
func (n *namespace) withoutIPv6() {
	for _, scope := range []string{"all", "default"} {
		_ = n.setSysctl("net.ipv6.conf."+scope+".disable_ipv6", "1")
	}
}

func (n *namespace) close() error { return n.file.Close() }

// onThread runs fn on a thread that nothing else uses afterwards: the way back
// to the first namespace may not be permitted. A goroutine that ends locked to
// its thread takes the thread with it.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- fn()
	}()
	return <-done
}
