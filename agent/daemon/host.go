package daemon

import (
	"fmt"
	"os"
	"strings"

	"github.com/buddyring/buddyring/internal/member"
)

const maxBootIDBytes = 128

// readBootID reads the id of this boot from a file, or asks the system where
// path is empty.
func readBootID(path string) (string, error) {
	source := systemBootID
	if path != "" {
		source = func() (string, error) {
			data, err := os.ReadFile(path)
			return string(data), err
		}
	}
	text, err := source()
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	id := strings.TrimSpace(text)
	if id == "" || len(id) > maxBootIDBytes || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", member.Invalid("boot-id-file", "must hold one word of at most %d bytes", maxBootIDBytes)
	}
	return id, nil
}
