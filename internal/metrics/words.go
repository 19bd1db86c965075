package metrics

import (
	"sync"
	"unicode/utf8"
)

// Bounds of a label's vocabulary. What lies beyond them is counted as "other".
const (
	maxWords   = 64
	maxWordLen = 64
	otherWord  = "other"
)

// words keeps the vocabulary of each label, so that a value that came from outside by mistake can neither fill the memory nor,
// not being UTF-8, stop the program. The zero value is ready.
type words struct {
	mu    sync.RWMutex // guards the following
	known map[string]map[string]bool
}

// bound returns word, or "other" if the label's vocabulary has no place for it.
func (w *words) bound(label, word string) string {
	w.mu.RLock()
	ok := w.known[label][word]
	w.mu.RUnlock()
	if ok {
		return word
	}
	if len(word) > maxWordLen || !utf8.ValidString(word) {
		return otherWord
	}
	return w.learn(label, word)
}

func (w *words) learn(label, word string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := w.known[label]
	if known == nil {
		known = make(map[string]bool)
		if w.known == nil {
			w.known = make(map[string]map[string]bool)
		}
		w.known[label] = known
	}
	if !known[word] && len(known) >= maxWords {
		return otherWord
	}
	known[word] = true
	return word
}
