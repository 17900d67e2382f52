package config

import (
	"errors"
	"fmt"
	"os"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/buddyring/buddyring/internal/member"
)

// entry is one setting of a file.
type entry struct {
	key string
	// values has one element unless list is set. They are the words as written,
	// so that they mean the same as on the command line.
	values []string
	list   bool
	// at is FILE:LINE:COLUMN of the key.
	at string
}

const maxFileBytes = 1 << 20

// readFile reads a flat mapping of scalars and lists of scalars. Errors name
// the line and the column.
func readFile(path string) ([]entry, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > maxFileBytes {
		return nil, member.Invalid(path, "is larger than %d bytes", maxFileBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, member.Invalid(configFlag, "%v", err)
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, syntaxError(path, err)
	}
	var entries []entry
	for i, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if i > 0 {
			return nil, member.Invalid(position(path, doc.Body), "only one document is allowed")
		}
		if entries, err = readMapping(path, doc.Body); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

func readMapping(path string, body ast.Node) ([]entry, error) {
	mapping, ok := body.(*ast.MappingNode)
	if !ok {
		return nil, member.Invalid(position(path, body), "NAME: VALUE is expected")
	}
	entries := make([]entry, 0, len(mapping.Values))
	for _, pair := range mapping.Values {
		e := entry{key: pair.Key.GetToken().Value, at: position(path, pair.Key)}
		if err := e.read(path, pair.Value); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func (e *entry) read(path string, value ast.Node) error {
	if list, ok := value.(*ast.SequenceNode); ok {
		e.list = true
		for _, item := range list.Values {
			text, ok := scalar(item)
			if !ok {
				return member.Invalid(position(path, item), "%s: a plain value is expected", e.key)
			}
			e.values = append(e.values, text)
		}
		return nil
	}
	text, ok := scalar(value)
	if !ok {
		return member.Invalid(position(path, value), "%s: a plain value or a list of them is expected", e.key)
	}
	e.values = []string{text}
	return nil
}

// scalar returns a plain value as it was written, without its quotes.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	default:
		return "", false
	}
}

func position(path string, n ast.Node) string { return positionOf(path, n.GetToken()) }

func positionOf(path string, t *token.Token) string {
	if t == nil || t.Position == nil {
		return path
	}
	return fmt.Sprintf("%s:%d:%d", path, t.Position.Line, t.Position.Column)
}

func syntaxError(path string, err error) error {
	if syntax, ok := errors.AsType[yaml.Error](err); ok {
		return member.Invalid(positionOf(path, syntax.GetToken()), "%s", syntax.GetMessage())
	}
	return member.Invalid(path, "%v", err)
}
