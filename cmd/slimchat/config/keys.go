package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Key describes one setting.
type Key struct {
	Name    string // as in the file, with points: mqtt.listen
	Doc     string
	Default string // as written in a file

	index []int // the way to its field in Config
	kind  reflect.Type
}

// Env is the setting's environment variable.
func (k Key) Env() string {
	return EnvPrefix + strings.ToUpper(strings.NewReplacer(".", "_").Replace(k.Name))
}

// Flag is the setting's name on the command line, without the dashes.
func (k Key) Flag() string {
	return strings.NewReplacer(".", "-", "_", "-").Replace(k.Name)
}

// Type names what the value is, for help texts.
func (k Key) Type() string {
	switch k.kind {
	case reflect.TypeFor[Size]():
		return "size"
	case reflect.TypeFor[Duration]():
		return "duration"
	case reflect.TypeFor[[]string](), reflect.TypeFor[[]Peer]():
		return "list"
	}
	switch k.kind.Kind() {
	case reflect.Bool:
		return "bool"
	case reflect.Int:
		return "int"
	default:
		return "string"
	}
}

// Keys lists every setting in the order of the struct.
func Keys() []Key {
	var keys []Key
	walk(reflect.ValueOf(Default()).Elem(), "", nil, func(k Key) { keys = append(keys, k) })
	return keys
}

func walk(v reflect.Value, prefix string, index []int, visit func(Key)) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		path := append(append([]int(nil), index...), i)
		name := prefix + field.Tag.Get("koanf")
		if field.Type.Kind() == reflect.Struct {
			walk(v.Field(i), name+".", path, visit)
			continue
		}
		visit(Key{Name: name, Doc: field.Tag.Get("doc"), Default: written(v.Field(i)), index: path, kind: field.Type})
	}
}

// written is a value as it stands in a file.
func written(v reflect.Value) string {
	switch value := v.Interface().(type) {
	case fmt.Stringer:
		return value.String()
	case []string, []Peer:
		return "[]" // the only lists among the defaults are empty
	default:
		return fmt.Sprint(value)
	}
}

// set reads raw, a value of a YAML file or the text of a variable or flag, into the key's field of c.
func (k Key) set(c *Config, raw any) error {
	field := reflect.ValueOf(c).Elem().FieldByIndex(k.index)
	if target, ok := field.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return target.UnmarshalText([]byte(fmt.Sprint(raw)))
	}
	switch k.kind {
	case reflect.TypeFor[[]string]():
		return setStrings(field, raw)
	case reflect.TypeFor[[]Peer]():
		return setPeers(field, raw)
	}
	return setScalar(field, strings.TrimSpace(fmt.Sprint(raw)))
}

func setScalar(field reflect.Value, text string) error {
	switch field.Kind() {
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		field.SetBool(b)
	case reflect.Int:
		n, err := strconv.Atoi(strings.ReplaceAll(text, "_", ""))
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		field.SetInt(int64(n))
	default:
		field.SetString(text)
	}
	return nil
}

// setStrings takes a YAML list, or text: the same list in YAML's short form, or items with commas between them.
func setStrings(field reflect.Value, raw any) error {
	var items []string
	switch value := raw.(type) {
	case []any:
		for _, item := range value {
			items = append(items, fmt.Sprint(item))
		}
	case string:
		if strings.HasPrefix(strings.TrimSpace(value), "[") {
			if err := yaml.Unmarshal([]byte(value), &items); err != nil {
				return fmt.Errorf("%q is not a list: %w", value, err)
			}
			break
		}
		for item := range strings.SplitSeq(value, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
	default:
		return fmt.Errorf("%v is not a list", raw)
	}
	if items == nil {
		items = []string{}
	}
	field.Set(reflect.ValueOf(items))
	return nil
}

// setPeers takes a YAML list of peers, or the text of one. What it says of a malformed one holds no secret.
func setPeers(field reflect.Value, raw any) error {
	var node yaml.Node
	switch value := raw.(type) {
	case string:
		if err := yaml.Unmarshal([]byte(value), &node); err != nil {
			return fmt.Errorf("not a list of peers")
		}
	default:
		if err := node.Encode(value); err != nil {
			return fmt.Errorf("not a list of peers")
		}
	}
	peers := []Peer{}
	text, err := yaml.Marshal(&node)
	if err != nil {
		return fmt.Errorf("not a list of peers")
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&peers); err != nil {
		return fmt.Errorf("want a list of peers, each with domain, secret and maybe url")
	}
	field.Set(reflect.ValueOf(peers))
	return nil
}
