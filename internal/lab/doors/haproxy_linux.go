package doors

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/buddyring/buddyring/internal/process"
)

// startHAProxy runs a real HAProxy on the clients' host with the sample
// configuration, but with the routers of the lab and sockets of its own. It
// returns the socket that clients connect to.
func (r *run) startHAProxy() (front string, err error) {
	const nameserver = "    nameserver router1 tcp@127.0.0.1:7553\n"
	sample, err := os.ReadFile(r.cfg.HAProxy)
	if err != nil {
		return "", fmt.Errorf("read HAProxy's configuration: %w", err)
	}
	front = filepath.Join(r.cfg.Dir, "front")
	var nameservers strings.Builder
	for i := range routers {
		fmt.Fprintf(&nameservers, "    nameserver router%d tcp@%s\n", i+1, r.DNSAddress(i))
	}
	text := string(sample)
	for _, change := range [][2]string{
		{"/run/haproxy/buddyring.sock", filepath.Join(r.cfg.Dir, "stats")},
		{"127.0.0.1:8080", "unix@" + front},
		{nameserver, nameservers.String()},
	} {
		if !strings.Contains(text, change[0]) {
			return "", fmt.Errorf("%s has no %q", r.cfg.HAProxy, change[0])
		}
		text = strings.ReplaceAll(text, change[0], change[1])
	}
	file := filepath.Join(r.cfg.Dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil { //nolint:gosec // Dir is the caller's choice
		return "", fmt.Errorf("write HAProxy's configuration: %w", err)
	}
	path, err := exec.LookPath("haproxy")
	if err != nil {
		path = "/usr/sbin/haproxy" // not in everybody's PATH
	}
	proxy, err := process.Start(r.clients(), process.Program{
		Name: "haproxy", Path: path, Args: []string{"-db", "-f", file}, Log: filepath.Join(r.cfg.Dir, "haproxy.log"),
	}, r.trouble)
	if err != nil {
		return "", err
	}
	r.atEnd(func() error { proxy.Kill(); return nil })
	return front, nil
}
