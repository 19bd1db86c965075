package yamlpos

import (
	"bytes"
	"errors"
	"io"

	"gopkg.in/yaml.v3"
)

// A Document is a YAML file that was read but not yet decoded.
type Document struct {
	name string
	size int // bytes
	tree *tree
}

// Parse reads the one document of a file; name is what problems call it. The error is a [*Problems].
func Parse(name string, data []byte) (*Document, error) {
	d := &Document{name: name, size: len(data)}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var first, second yaml.Node
	if err := decoder.Decode(&first); errors.Is(err, io.EOF) {
		return nil, d.refuse(0, 0, "the file is empty")
	} else if err != nil {
		return nil, d.refuseSyntax(data, err)
	}
	if err := decoder.Decode(&second); err == nil {
		return nil, d.refuse(second.Line, 0, "a second document begins here; only one is read, so remove the `---`")
	} else if !errors.Is(err, io.EOF) {
		return nil, d.refuseSyntax(data, err)
	}
	if isEmpty(first.Content[0]) {
		return nil, d.refuse(0, 0, "the file is empty")
	}
	d.tree = newTree(first.Content[0])
	return d, nil
}

// Problems is an empty collection that knows the positions of the document.
func (d *Document) Problems() *Problems { return &Problems{file: d.name, tree: d.tree} }

func (d *Document) refuse(line, column int, message string) error {
	p := d.Problems()
	p.report(Problem{File: d.name, Line: line, Column: column, Message: message})
	return p
}

func (d *Document) refuseSyntax(data []byte, err error) error {
	return d.refuse(explain(data, err))
}
