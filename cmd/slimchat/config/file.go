package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// entry is one value of a file and the line of its key.
type entry struct {
	key   string // with points, whether the file nests or writes them
	value any
	line  int
}

// parseFile reads a YAML file into its values, in the order of the file. path is for messages only.
func parseFile(path string, text []byte) ([]entry, error) {
	var doc yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil // nothing, or nothing but comments
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: holds more than one document", path)
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: want settings, such as domain: example.org", path, root.Line)
	}
	f := fileReader{path: path, sections: sections()}
	if err := f.mapping(root, ""); err != nil {
		return nil, err
	}
	return f.entries, nil
}

// fileReader flattens a tree of nodes.
type fileReader struct {
	path     string
	sections map[string]bool
	entries  []entry
}

func (f *fileReader) mapping(node *yaml.Node, prefix string) error {
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		key := prefix + name.Value
		if value.Kind == yaml.AliasNode || name.Kind != yaml.ScalarNode {
			return fmt.Errorf("%s:%d: want a setting and its value; aliases are not for settings", f.path, name.Line)
		}
		null := value.Kind == yaml.ScalarNode && value.Tag == "!!null"
		switch {
		case value.Kind == yaml.MappingNode:
			if !f.sections[key] && keyExists(key) {
				return fmt.Errorf("%s:%d: %s takes a value, not settings of its own", f.path, name.Line, key)
			}
			if err := f.mapping(value, key+"."); err != nil {
				return err
			}
			continue
		case f.sections[key] && null:
			continue // a section whose settings are all commented out
		case f.sections[key]:
			return fmt.Errorf("%s:%d: %s holds settings, not a value", f.path, name.Line, key)
		case null:
			return fmt.Errorf("%s:%d: %s has no value; remove the line to keep the default", f.path, name.Line, key)
		}
		var v any
		if err := value.Decode(&v); err != nil {
			return fmt.Errorf("%s:%d: %s: %w", f.path, name.Line, key, err)
		}
		if value.Kind == yaml.ScalarNode {
			v = value.Value // as written: 010 and 1e3 are for the setting's own type to read
		}
		f.entries = append(f.entries, entry{key: key, value: v, line: name.Line})
	}
	return nil
}

// sections lists the names that have settings below them.
func sections() map[string]bool {
	found := map[string]bool{}
	for _, key := range Keys() {
		for i := range len(key.Name) {
			if key.Name[i] == '.' {
				found[key.Name[:i]] = true
			}
		}
	}
	return found
}

func keyExists(name string) bool {
	_, ok := keysByName()[name]
	return ok
}
