package statedir

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// ErrCorrupt says that a file is not what was written, or of another kind.
var ErrCorrupt = errors.New("not a whole state file")

// Seal returns a file that holds body: a first line with a kind, such as
// "buddyring-router-view 1", and the SHA-256 of body, and then body as it is.
func Seal(kind string, body []byte) []byte {
	return slices.Concat([]byte(firstLine(kind, body)), []byte("\n"), body)
}

// Unseal returns what Seal was given. Whatever is not such a file, whole and
// unchanged, is ErrCorrupt.
func Unseal(kind string, data []byte) ([]byte, error) {
	head, body, _ := bytes.Cut(data, []byte("\n"))
	if want := firstLine(kind, body); string(head) != want {
		return nil, fmt.Errorf("%w: the first line is not %q", ErrCorrupt, want)
	}
	return body, nil
}

func firstLine(kind string, body []byte) string {
	sum := sha256.Sum256(body)
	return kind + " " + hex.EncodeToString(sum[:])
}
