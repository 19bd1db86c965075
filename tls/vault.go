package tls

import (
	"context"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// A vault keeps certificates, and knows which of its locks are held: nothing is being got or renewed without one.
type vault struct {
	certmagic.Storage

	mu   sync.Mutex // guards the following
	held map[string]bool
	idle chan struct{} // closed while no lock is held
}

func newVault(s certmagic.Storage) *vault {
	v := &vault{Storage: s, held: make(map[string]bool), idle: make(chan struct{})}
	close(v.idle)
	return v
}

// Lock is certmagic.Locker's.
func (v *vault) Lock(ctx context.Context, name string) error {
	err := v.Storage.Lock(ctx, name)
	if err == nil {
		v.took(name)
	}
	return err
}

// TryLock is certmagic.TryLocker's. A storage that cannot try takes the lock.
func (v *vault) TryLock(ctx context.Context, name string) (bool, error) {
	try, ok := v.Storage.(certmagic.TryLocker)
	if !ok {
		return true, v.Lock(ctx, name)
	}
	got, err := try.TryLock(ctx, name)
	if got && err == nil {
		v.took(name)
	}
	return got, err
}

// Unlock is certmagic.Locker's.
func (v *vault) Unlock(ctx context.Context, name string) error {
	err := v.Storage.Unlock(ctx, name)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.held[name] {
		delete(v.held, name)
		if len(v.held) == 0 {
			close(v.idle)
		}
	}
	return err
}

func (v *vault) took(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.held) == 0 {
		v.idle = make(chan struct{})
	}
	v.held[name] = true
}

// settle waits until no lock is held, but no longer than patience. What is left then is unlocked: the next program need not wait.
func (v *vault) settle(patience time.Duration) {
	v.mu.Lock()
	idle := v.idle
	v.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-idle:
		return
	case <-timer.C:
	}
	v.mu.Lock()
	names := make([]string, 0, len(v.held))
	for name := range v.held {
		names = append(names, name)
	}
	v.mu.Unlock()
	for _, name := range names {
		_ = v.Unlock(context.Background(), name)
	}
}
