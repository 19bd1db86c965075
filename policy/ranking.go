package policy

import "container/heap"

// A ranked thing stands in one ranking at most, and knows where.
type ranked[T any] interface {
	*T
	before(other *T) bool
	at() *int
}

// A ranking is a heap: the first of all is on top.
type ranking[T any, P ranked[T]] []P

func (r *ranking[T, P]) add(x P)    { heap.Push(r, x) }
func (r *ranking[T, P]) remove(x P) { heap.Remove(r, *x.at()) }
func (r *ranking[T, P]) settle(x P) { heap.Fix(r, *x.at()) }

// second is the first of all others; nil: there are none.
func (r ranking[T, P]) second() P {
	switch {
	case len(r) < 2:
		return nil
	case len(r) > 2 && r.Less(2, 1):
		return r[2]
	}
	return r[1]
}

// Len is heap.Interface's.
func (r ranking[T, P]) Len() int { return len(r) }

// Less is heap.Interface's.
func (r ranking[T, P]) Less(i, j int) bool { return r[i].before(r[j]) }

// Swap is heap.Interface's.
func (r ranking[T, P]) Swap(i, j int) {
	r[i], r[j] = r[j], r[i]
	*r[i].at(), *r[j].at() = i, j
}

// Push is heap.Interface's.
func (r *ranking[T, P]) Push(x any) {
	p := x.(P)
	*p.at() = len(*r)
	*r = append(*r, p)
}

// Pop is heap.Interface's.
func (r *ranking[T, P]) Pop() any {
	last := len(*r) - 1
	p := (*r)[last]
	(*r)[last] = nil
	*r = (*r)[:last]
	return p
}
