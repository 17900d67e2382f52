// Package pki makes the certificate authority of a first installation and
// certificates that buddyring's processes identify one another by: ECDSA P-256
// keys, and the identity in the only URI SAN.
//
// It makes files and revokes nothing; whoever has another authority needs it
// not.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
)

// backdate makes a certificate valid at once on hosts whose clock is behind.
const backdate = time.Hour

// trustDomain is the URI of a domain's authority.
func trustDomain(domain string) *url.URL { return &url.URL{Scheme: "spiffe", Host: domain} }

// Authority is a certificate authority with its key.
type Authority struct {
	// Domain is the trust domain of all identities that it issues.
	Domain string

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority that is valid from now on for that long. Its
// certificate allows it to issue for its own domain only.
func NewAuthority(domain string, now time.Time, valid time.Duration) (*Authority, error) {
	if _, err := member.ParseID("domain", domain); err != nil {
		return nil, err
	}
	key, serial, err := fresh()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:                serial,
		Subject:                     pkix.Name{CommonName: "buddyring CA of " + domain},
		NotBefore:                   now.Add(-backdate),
		NotAfter:                    now.Add(valid),
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid:       true,
		IsCA:                        true,
		MaxPathLenZero:              true,
		URIs:                        []*url.URL{trustDomain(domain)},
		PermittedURIDomains:         []string{domain},
		PermittedDNSDomainsCritical: true,
	}
	cert, err := sign(template, template, key, key)
	if err != nil {
		return nil, err
	}
	return &Authority{Domain: domain, cert: cert, key: key}, nil
}

// Wanted is what a certificate should be.
type Wanted struct {
	// Identity says who it is for; its Domain is the authority's.
	Identity rpc.Identity
	// Hosts are DNS names and IP addresses for clients that check those, such
	// as grpcurl and browsers. buddyring's own processes check the identity.
	Hosts []string
	Valid time.Duration
}

// Issued is a certificate with its key.
type Issued struct {
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
}

// Issue makes a certificate. It ends no later than the authority's: a longer
// validity is refused.
func (a *Authority) Issue(w Wanted, now time.Time) (*Issued, error) {
	w.Identity.Domain = a.Domain
	id, err := rpc.ParseIdentity("identity", w.Identity.String())
	if err != nil {
		return nil, err
	}
	end := now.Add(w.Valid)
	if end.After(a.cert.NotAfter) {
		return nil, member.Invalid("valid", "%s is beyond the end of the CA, %s", w.Valid, a.cert.NotAfter.Format(time.DateOnly))
	}
	uri, err := url.Parse(id.String())
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	key, serial, err := fresh()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName(id)},
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usages(id.Role),
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{uri},
	}
	if err := addHosts(template, w.Hosts); err != nil {
		return nil, err
	}
	cert, err := sign(template, a.cert, key, a.key)
	if err != nil {
		return nil, err
	}
	return &Issued{Cert: cert, Key: key}, nil
}

// commonName is for people only; nothing decides by it.
func commonName(id rpc.Identity) string {
	name := string(id.Role) + " " + id.Name
	if id.Pool != "" {
		name = string(id.Role) + " " + string(id.Pool) + "/" + id.Name
	}
	// X.520 allows 64 characters.
	return name[:min(len(name), 64)]
}

// usages lets all that listen be servers, and all be clients.
func usages(r rpc.Role) []x509.ExtKeyUsage {
	if r == rpc.RoleAdmin || r == rpc.RoleClient {
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
}

func addHosts(c *x509.Certificate, hosts []string) error {
	for _, h := range hosts {
		a, err := netip.ParseAddr(h)
		if err == nil && a.Zone() == "" {
			c.IPAddresses = append(c.IPAddresses, net.IP(a.Unmap().AsSlice()))
			continue
		}
		if err == nil || member.CheckHostPort("host", net.JoinHostPort(h, "1")) != nil {
			return member.Invalid("host", "%q is neither an IP address nor a DNS name", h)
		}
		c.DNSNames = append(c.DNSNames, h)
	}
	return nil
}

func fresh() (*ecdsa.PrivateKey, *big.Int, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, fmt.Errorf("make serial number: %w", err)
	}
	return key, serial.Add(serial, big.NewInt(1)), nil
}

func sign(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read signed certificate: %w", err)
	}
	return cert, nil
}
