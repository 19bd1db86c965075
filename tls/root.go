package tls

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Where the root lies below the state directory.
const (
	rootDir  = "ca"
	rootCert = "root.pem"
	rootKey  = "root-key.pem"
)

// rootNotice is how long before the root's end the log begins to speak of it.
const rootNotice = 90 * 24 * time.Hour

// errNoRoot says that no root was made yet.
var errNoRoot = errors.New("no root")

// A root is the anchor of the local authority: what clients trust.
type root struct {
	*identity
	pem  []byte // the certificate
	path string // its file
}

// openRoot reads the root from the state directory, and makes it if there is none. Any number of processes may do so at once:
// all end with the same one.
func openRoot(state string, log *slog.Logger) (*root, error) {
	if state == "" {
		return nil, errors.New("it needs a directory to keep its root in: set `state`")
	}
	dir := filepath.Join(state, rootDir)
	r, err := readRoot(dir)
	if errors.Is(err, errNoRoot) {
		made := makeRoot(state, dir)
		if r, err = readRoot(dir); errors.Is(err, errNoRoot) {
			return nil, fmt.Errorf("make a root in %s: %w", dir, made)
		}
		if made == nil {
			log.Info("made a local CA: clients must trust its root", "root", filepath.Join(dir, rootCert))
		}
	}
	if err != nil {
		return nil, err
	}
	warnIfReadable(filepath.Join(dir, rootKey), 0o077, log)
	if left := time.Until(r.cert.NotAfter); left < rootNotice {
		log.Warn("the root of the local CA expires soon: remove its directory to make a new one, which clients must then trust",
			"dir", dir, "expires", r.cert.NotAfter)
	}
	return r, nil
}

// readRoot returns errNoRoot if neither file exists.
func readRoot(dir string) (*root, error) {
	in, err := os.OpenRoot(dir) // so that both files are of one directory, also while another process puts a new one here
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoRoot
	}
	if err != nil {
		return nil, err
	}
	defer in.Close()
	r := &root{path: filepath.Join(dir, rootCert)}
	certPEM, certErr := in.ReadFile(rootCert)
	keyPEM, keyErr := in.ReadFile(rootKey)
	if errors.Is(certErr, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist) {
		return nil, errNoRoot
	}
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, r.broken(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, r.broken(err)
	}
	if !pair.Leaf.IsCA {
		return nil, r.broken(errors.New("its certificate is not an authority's"))
	}
	if err := checkLife(pair.Leaf, time.Now()); err != nil {
		return nil, r.broken(err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, r.broken(fmt.Errorf("a %T cannot sign", pair.PrivateKey))
	}
	r.identity = &identity{pair.Leaf, key, pair.Leaf.NotBefore}
	r.pem = certPEM
	return r, nil
}

// broken says what is wrong with the root, and what can be done.
func (r *root) broken(err error) error {
	dir := filepath.Dir(r.path)
	return fmt.Errorf("the root in %s and %s cannot be used: %w; restore both files from a backup, or remove %s to make a new "+
		"root, which clients must then trust", r.path, filepath.Join(dir, rootKey), err, dir)
}

// makeRoot makes a root and puts both its files in place at once, by renaming the directory that holds them. Where another
// process was faster, renaming fails, since a directory that holds something cannot be replaced.
func makeRoot(state, dir string) error {
	made, err := issueAuthority("bridgehead local CA", rootLife, nil, time.Now())
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(made.key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(state, rootDir+"-*.tmp") // 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // of no effect once it is renamed
	if err := writePEM(filepath.Join(tmp, rootCert), 0o644, "CERTIFICATE", made.cert.Raw); err != nil {
		return err
	}
	if err := writePEM(filepath.Join(tmp, rootKey), 0o600, "PRIVATE KEY", key); err != nil {
		return err
	}
	_ = os.Remove(dir) // it may be there, but empty; if it holds something, it stays
	return os.Rename(tmp, dir)
}

// writePEM writes a new file down to the disk.
func writePEM(path string, mode fs.FileMode, kind string, der []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	return errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Sync(), f.Close())
}

// warnIfReadable speaks of a private key that users beyond the mask may read. Windows has no such modes.
func warnIfReadable(key string, mask fs.FileMode, log *slog.Logger) {
	if info, err := os.Stat(key); err == nil && info.Mode().Perm()&mask != 0 && runtime.GOOS != "windows" {
		log.Warn("other users can read a private key: take that from them with chmod", "key", key, "mode", info.Mode().Perm().String())
	}
}
