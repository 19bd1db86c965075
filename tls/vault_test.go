package tls

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// locks is a storage that has nothing but locks.
type locks struct {
	certmagic.Storage
	mu   sync.Mutex
	held map[string]bool
}

func (l *locks) Lock(_ context.Context, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[name] {
		return errors.New("it is held")
	}
	l.held[name] = true
	return nil
}

func (l *locks) Unlock(_ context.Context, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, name)
	return nil
}

func TestTheEndWaitsForWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	l := &locks{held: make(map[string]bool)}
	v := newVault(l)
	v.settle(time.Hour) // nothing is held
	must(t, v.Lock(t.Context(), "a"))
	if ok, err := v.TryLock(t.Context(), "b"); !ok || err != nil {
		t.Errorf("%t, %v", ok, err)
	}
	if err := v.Lock(t.Context(), "a"); err == nil {
		t.Error("a lock is taken twice")
	}
	settled := make(chan struct{})
	go func() { v.settle(time.Hour); close(settled) }()
	must(t, v.Unlock(t.Context(), "a"))
	select {
	case <-settled:
		t.Error("it does not wait for b")
	default:
	}
	must(t, v.Unlock(t.Context(), "b"))
	<-settled

	must(t, v.Lock(t.Context(), "left"))
	v.settle(time.Millisecond)
	if l.held["left"] {
		t.Error("a lock is left for the next program to wait for")
	}
}

func TestWhatCertmagicSaysIsLogged(t *testing.T) {
	t.Parallel()
	out := newLogs()
	log := newZap(out.logger())
	log.Named("obtain").With(zap.String("host", "a.example")).Error("could not", zap.Error(errors.New("no")), zap.Duration("in", time.Second))
	log.Info("waiting", zap.Strings("names", []string{"a", "b"}))
	log.Debug("byte by byte")
	for words, n := range map[string]int{
		`level=WARN msg="ACME: could not" host=a.example error=no in=1s`: 1, `level=DEBUG msg="ACME: waiting" names="[a b]"`: 1, "byte": 0,
	} {
		if out.count(words) != n {
			t.Errorf("%q is not there %d times:\n%s", words, n, out)
		}
	}
}
