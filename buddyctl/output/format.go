package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/goccy/go-yaml"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/buddyring/buddyring/internal/member"
)

// Format is how answers are written.
type Format string

// The formats. Table is for people and may change between versions; JSON and
// YAML carry the messages of the API and change only as the API does.
const (
	Table Format = "table"
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// ParseFormat reads the name of a format.
func ParseFormat(field, s string) (Format, error) {
	switch f := Format(s); f {
	case Table, JSON, YAML:
		return f, nil
	}
	return "", member.Invalid(field, "%q is neither table nor json nor yaml", s)
}

// WriteJSON writes a message as indented JSON with the proto field names and a
// newline at the end. Empty lists, zeros and false are written; unset optional
// fields and messages are not. The same message gives the same bytes.
func WriteJSON(w io.Writer, m proto.Message) error {
	compact, err := marshal(m)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, compact, "", "  "); err != nil {
		return fmt.Errorf("indent JSON: %w", err)
	}
	b.WriteByte('\n')
	return write(w, b.Bytes())
}

// WriteJSONLine writes a message as WriteJSON does, on one line.
func WriteJSONLine(w io.Writer, m proto.Message) error {
	compact, err := marshal(m)
	if err != nil {
		return err
	}
	return write(w, append(compact, '\n'))
}

// WriteYAML writes a message with the content of WriteJSON as YAML.
func WriteYAML(w io.Writer, m proto.Message) error {
	compact, err := marshal(m)
	if err != nil {
		return err
	}
	b, err := yaml.JSONToYAML(compact)
	if err != nil {
		return fmt.Errorf("encode YAML: %w", err)
	}
	return write(w, b)
}

// WriteYAMLDocument writes a message as WriteYAML does, as one document of a
// stream.
func WriteYAMLDocument(w io.Writer, m proto.Message) error {
	if err := write(w, []byte("---\n")); err != nil {
		return err
	}
	return WriteYAML(w, m)
}

// marshal returns JSON without the spaces that protojson varies on purpose.
func marshal(m proto.Message) ([]byte, error) {
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode JSON: %w", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		return nil, fmt.Errorf("compact JSON: %w", err)
	}
	return compact.Bytes(), nil
}

func write(w io.Writer, b []byte) error {
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}
