package yamlpos

import "gopkg.in/yaml.v3"

// A tree is a document as it is meant: aliases stand for what they name, and `<<` for the keys it merges.
type tree struct {
	root   *yaml.Node
	merged map[*yaml.Node][]entry // the entries of mappings with `<<`: merges of merges could take for ever to do again
}

// An entry is a key and its value in a mapping.
type entry struct{ key, value *yaml.Node }

func newTree(root *yaml.Node) *tree { return &tree{root, map[*yaml.Node][]entry{}} }

// find returns the deepest node on a path that exists, and how many steps lead to it.
func (t *tree) find(at Path) (*yaml.Node, int) {
	n := t.root
	for i, step := range at {
		next := t.child(n, step)
		if next == nil {
			return n, i
		}
		n = next
	}
	return n, len(at)
}

// child is the node one step below n, or nil.
func (t *tree) child(n *yaml.Node, step any) *yaml.Node {
	n = resolve(n)
	switch step := step.(type) {
	case int:
		if n.Kind == yaml.SequenceNode && step < len(n.Content) {
			return n.Content[step]
		}
		if n.Kind == yaml.ScalarNode && step == 0 {
			return n // a list of one, written without brackets
		}
	case string:
		for _, e := range t.entries(n) {
			if e.key.Value == step {
				return e.value
			}
		}
	}
	return nil
}

// entries are the pairs of a mapping: its own as they stand, then the merged ones it does not have itself.
func (t *tree) entries(n *yaml.Node) []entry {
	if all, ok := t.merged[n]; ok {
		return all
	}
	var own []entry
	var merges []*yaml.Node
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if key, value := n.Content[i], n.Content[i+1]; isMerge(key) {
			merges = append(merges, sources(value)...)
		} else {
			own = append(own, entry{key, value})
		}
	}
	if len(merges) == 0 {
		return own
	}
	t.merged[n] = own // a mapping may merge itself
	t.merged[n] = t.merge(own, merges)
	return t.merged[n]
}

func (t *tree) merge(own []entry, merges []*yaml.Node) []entry {
	has := map[string]bool{}
	for _, e := range own {
		has[e.key.Value] = true
	}
	for _, source := range merges {
		for _, e := range t.entries(source) {
			if !has[e.key.Value] {
				has[e.key.Value] = true
				own = append(own, e)
			}
		}
	}
	return own
}

// sources are the mappings that `<<` names: one, or a list.
func sources(value *yaml.Node) []*yaml.Node {
	value = resolve(value)
	if value.Kind != yaml.SequenceNode {
		return []*yaml.Node{value}
	}
	var list []*yaml.Node
	for _, n := range value.Content {
		list = append(list, resolve(n))
	}
	return list
}

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isMerge(key *yaml.Node) bool { return key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" }

// isEmpty tells whether nothing is written where a value should be: `key:`, `~` or `null`.
func isEmpty(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// kind names what a node is for an error text.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}
