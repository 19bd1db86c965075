package upstream

// Targets are all servers of the group, in their order.
func (g *Group) Targets() []*Target { return g.current.Load().targets }

// String is where the server is, without a path.
func (t *Target) String() string {
	if t.network == "unix" {
		return "unix:" + t.address
	}
	return t.scheme + "://" + t.address
}
