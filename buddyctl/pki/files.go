package pki

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/buddyring/buddyring/internal/member"
)

// The authority's files in its directory.
const (
	CAFile    = "ca.crt"
	CAKeyFile = "ca.key"
)

// Files are the paths of a certificate and its key.
type Files struct{ Cert, Key string }

// Save writes the authority into a directory, which it makes for its owner
// only. It overwrites nothing.
func (a *Authority) Save(dir string) (Files, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Files{}, fmt.Errorf("make directory: %w", err)
	}
	return save(Files{Cert: filepath.Join(dir, CAFile), Key: filepath.Join(dir, CAKeyFile)}, a.cert, a.key)
}

// Save writes a certificate and its key as NAME.crt and NAME.key into a
// directory. It overwrites nothing.
func (i *Issued) Save(dir, name string) (Files, error) {
	return save(Files{Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}, i.Cert, i.Key)
}

// save writes both files or none.
func save(f Files, cert *x509.Certificate, key *ecdsa.PrivateKey) (Files, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Files{}, fmt.Errorf("encode key: %w", err)
	}
	if err := create(f.Key, 0o600, &pem.Block{Type: "PRIVATE KEY", Bytes: der}); err != nil {
		return Files{}, err
	}
	if err := create(f.Cert, 0o644, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}); err != nil {
		return Files{}, errors.Join(err, os.Remove(f.Key))
	}
	return f, nil
}

func create(path string, mode fs.FileMode, block *pem.Block) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s; it is not overwritten: move it away first", member.ErrAlreadyExists, path)
	}
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}
	err = errors.Join(pem.Encode(f, block), f.Sync(), f.Close())
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(path))
	}
	return nil
}

// Open reads an authority that Save wrote.
func Open(dir string) (*Authority, error) {
	certDER, err := read(filepath.Join(dir, CAFile), "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	keyDER, err := read(filepath.Join(dir, CAKeyFile), "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, fmt.Errorf("read CA certificate: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, fmt.Errorf("read CA key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("read CA key: %s does not belong to %s", CAKeyFile, CAFile)
	}
	if !cert.IsCA || len(cert.URIs) != 1 || cert.URIs[0].Scheme != "spiffe" {
		return nil, fmt.Errorf("read CA certificate: %s was not made by \"buddyctl ca init\"", CAFile)
	}
	return &Authority{Domain: cert.URIs[0].Host, cert: cert, key: key}, nil
}

func read(path, kind string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s; make a CA first: buddyctl ca init", member.ErrNotFound, path)
	}
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("read %s: no PEM block %q in it", path, kind)
	}
	return block.Bytes, nil
}
