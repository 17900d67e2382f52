package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/buddyring/buddyring/internal/member"
)

// Security says how a process's listeners and dials are secured. The zero
// value is plaintext on loopback only.
type Security struct {
	// CertFile, KeyFile and CAFile are PEM files: all three or none. With them
	// everything is mutual TLS.
	CertFile, KeyFile, CAFile string
	// Insecure allows plaintext beyond loopback.
	Insecure bool
}

// Credentials secure the listeners and dials of one process. They are safe for
// concurrent use.
type Credentials struct {
	insecure bool
	log      *slog.Logger
	// files is nil for plaintext.
	files *files
}

// NewCredentials reads the files. From then on they are looked at again at
// handshakes, at most once a second; where the new ones are not usable the
// last good ones are kept, with one WARN. Errors name the flag or the file.
func NewCredentials(s Security, log *slog.Logger) (*Credentials, error) {
	c := &Credentials{insecure: s.Insecure, log: log}
	if s.CertFile == "" && s.KeyFile == "" && s.CAFile == "" {
		return c, nil
	}
	for _, f := range []struct{ flag, value string }{
		{"tls-cert", s.CertFile}, {"tls-key", s.KeyFile}, {"tls-ca", s.CAFile},
	} {
		if f.value == "" {
			return nil, member.Invalid(f.flag, "is missing: tls-cert, tls-key and tls-ca go together")
		}
	}
	if s.Insecure {
		return nil, member.Invalid("insecure", "contradicts tls-cert: choose one")
	}
	files := &files{paths: [...]string{s.CertFile, s.KeyFile, s.CAFile}, log: log, now: time.Now}
	stamps, err := files.stat()
	if err != nil {
		return nil, err
	}
	if files.good, err = files.load(); err != nil {
		return nil, err
	}
	files.stamps, files.checked = stamps, files.now()
	if end := files.good.cert.Leaf.NotAfter; files.now().After(end) {
		log.Warn("own certificate has expired", "file", s.CertFile, "not_after", end)
	}
	c.files = files
	return c, nil
}

// TLS reports whether connections are secured.
func (c *Credentials) TLS() bool { return c.files != nil }

// Identity is what this process's own certificate says; zero without TLS.
func (c *Credentials) Identity() Identity {
	if c.files == nil {
		return Identity{}
	}
	return c.files.current().identity
}

// Register adds the metric of the own certificate's end; without TLS none.
func (c *Credentials) Register(reg *prometheus.Registry) {
	if c.files == nil {
		return
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "buddyring_certificate_expires_timestamp_seconds",
		Help: "When the own certificate ends, as this process uses it now.",
	}, func() float64 { return float64(c.files.current().cert.Leaf.NotAfter.Unix()) }))
}

// HTTPConfig is the TLS configuration for an HTTP listener, or nil without
// TLS. A client need not have a certificate, but one that it shows is verified.
func (c *Credentials) HTTPConfig() *tls.Config {
	if c.files == nil {
		return nil
	}
	return c.files.serverConfig("http/1.1", tls.VerifyClientCertIfGiven)
}

// files are a certificate, its key and the CA, as they are on disk.
type files struct {
	paths [3]string
	log   *slog.Logger
	now   func() time.Time

	mu      sync.Mutex
	checked time.Time
	// stamps are those of the files in good.
	stamps [3]os.FileInfo
	good   *material
	// complaint is the failure that was logged last, or "".
	complaint string
}

// material is what one reading of the files gave. It is immutable.
type material struct {
	cert     tls.Certificate
	roots    *x509.CertPool
	identity Identity
}

const recheckEvery = time.Second

// current returns the newest usable reading.
func (f *files) current() *material {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if now.Sub(f.checked) < recheckEvery {
		return f.good
	}
	f.checked = now
	if err := f.reload(); err != nil {
		if err.Error() != f.complaint {
			f.complaint = err.Error()
			f.log.Warn("tls files not reloaded, keeping the last good ones", "error", err)
		}
		return f.good
	}
	f.complaint = ""
	return f.good
}

// reload reads the files if they changed. Until a reading succeeds each call
// tries again: certificate and key are never replaced at the same instant.
func (f *files) reload() error {
	stamps, err := f.stat()
	if err != nil {
		return err
	}
	same := true
	for i, s := range stamps {
		old := f.stamps[i]
		same = same && os.SameFile(old, s) && old.ModTime().Equal(s.ModTime()) && old.Size() == s.Size()
	}
	if same {
		return nil
	}
	m, err := f.load()
	if err != nil {
		return err
	}
	f.stamps, f.good = stamps, m
	f.log.Info("tls files reloaded", "identity", m.identity.String(), "not_after", m.cert.Leaf.NotAfter)
	return nil
}

func (f *files) stat() ([3]os.FileInfo, error) {
	var stamps [3]os.FileInfo
	for i, path := range f.paths {
		info, err := os.Stat(path)
		if err != nil {
			return stamps, fmt.Errorf("read tls file: %w", err)
		}
		stamps[i] = info
	}
	return stamps, nil
}

func (f *files) load() (*material, error) {
	cert, err := tls.LoadX509KeyPair(f.paths[0], f.paths[1])
	if err != nil {
		return nil, fmt.Errorf("read certificate %s with key %s: %w", f.paths[0], f.paths[1], err)
	}
	identity, err := certificateIdentity(cert.Leaf)
	if err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", f.paths[0], err)
	}
	pem, err := os.ReadFile(f.paths[2])
	if err != nil {
		return nil, fmt.Errorf("read ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read ca %s: %w", f.paths[2], errors.New("no PEM certificate in it"))
	}
	return &material{cert: cert, roots: roots, identity: identity}, nil
}
