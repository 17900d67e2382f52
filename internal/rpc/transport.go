package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"google.golang.org/grpc/credentials"
)

// authInfo is what a server knows of a client's connection.
type authInfo struct {
	credentials.CommonAuthInfo

	conn     *Conn
	tls      bool
	identity Identity
}

// AuthType names the kind of security.
func (a authInfo) AuthType() string {
	if a.tls {
		return "tls"
	}
	return "insecure"
}

// serverTransport performs a server's half of handshakes. Without files it is
// plaintext.
type serverTransport struct {
	files *files
	log   *slog.Logger
}

func (t *serverTransport) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if t.files == nil {
		conn := newConn(raw)
		return conn, authInfo{
			CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, conn: conn,
		}, nil
	}
	secured := tls.Server(raw, t.files.serverConfig("h2", tls.RequireAndVerifyClientCert))
	// gRPC has set the connection's deadline.
	if err := secured.HandshakeContext(context.Background()); err != nil {
		if !errors.Is(err, io.EOF) {
			// gRPC drops the error, and the client does not learn the reason.
			t.log.Warn("tls handshake failed", "peer", host(raw.RemoteAddr()), "error", err)
		}
		return nil, nil, errors.Join(fmt.Errorf("handshake with %s: %w", raw.RemoteAddr(), err), raw.Close())
	}
	conn := newConn(secured)
	return conn, authInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		conn:           conn,
		tls:            true,
		identity:       t.files.peer(secured.ConnectionState()),
	}, nil
}

// host is a peer without its port: a log counts lines about the same peer.
func host(peer net.Addr) string {
	if h, _, err := net.SplitHostPort(peer.String()); err == nil {
		return h
	}
	return peer.String()
}

func (t *serverTransport) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("server credentials cannot dial")
}

func (t *serverTransport) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (t *serverTransport) Clone() credentials.TransportCredentials { return t }

func (t *serverTransport) OverrideServerName(string) error { return nil }

// clientTransport performs a client's half of TLS handshakes with servers of
// one role.
type clientTransport struct {
	files *files
	role  Role
}

func (t *clientTransport) ClientHandshake(
	ctx context.Context, _ string, raw net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	conn := tls.Client(raw, t.files.clientConfig(t.role))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, nil, errors.Join(err, raw.Close())
	}
	return conn, authInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, tls: true,
	}, nil
}

func (t *clientTransport) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("client credentials cannot serve")
}

func (t *clientTransport) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (t *clientTransport) Clone() credentials.TransportCredentials { return t }

func (t *clientTransport) OverrideServerName(string) error { return nil }

// serverConfig takes the files as they are at each handshake.
func (f *files) serverConfig(protocol string, auth tls.ClientAuthType) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			m := f.current()
			return &tls.Config{
				MinVersion:   tls.VersionTLS13,
				NextProtos:   []string{protocol},
				Certificates: []tls.Certificate{m.cert},
				ClientAuth:   auth,
				ClientCAs:    m.roots,
				// A resumed session would not be verified against new files.
				SessionTicketsDisabled: true,
			}, nil
		},
	}
}

func (f *files) clientConfig(role Role) *tls.Config {
	m := f.current()
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &m.cert, nil
		},
		// The chain and the role are verified below; host names are not, since
		// identity is the URI SAN.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it
		VerifyConnection: func(state tls.ConnectionState) error {
			return m.verifyServer(state, role)
		},
	}
}

func (m *material) verifyServer(state tls.ConnectionState, role Role) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("verify server: it has no certificate")
	}
	leaf, between := state.PeerCertificates[0], x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: m.roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		return fmt.Errorf("verify server: %w", err)
	}
	id, err := certificateIdentity(leaf)
	if err != nil {
		return fmt.Errorf("verify server: %w", err)
	}
	if id.Role != role || id.Domain != m.identity.Domain {
		return fmt.Errorf("verify server: it is %s, not a %s of %s", id, role, m.identity.Domain)
	}
	return nil
}

// peer returns a verified client's identity, or zero when it is not one of
// this domain.
func (f *files) peer(state tls.ConnectionState) Identity {
	id, err := certificateIdentity(state.PeerCertificates[0])
	if err != nil || id.Domain != f.current().identity.Domain {
		return Identity{}
	}
	return id
}
