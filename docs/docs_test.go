// Package docs_test keeps the documents true: what they name exists.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// document is one Markdown file.
type document struct {
	// path is relative to the root of the repository.
	path, text string
}

const root = ".."

// documents are the README, the changelog and everything below docs.
func documents(t *testing.T) []document {
	t.Helper()
	paths := []string{"README.md"}
	if _, err := os.Stat(filepath.Join(root, "CHANGELOG.md")); err == nil {
		paths = append(paths, "CHANGELOG.md")
	}
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			paths = append(paths, filepath.Join("docs", path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	docs := make([]document, len(paths))
	for i, path := range paths {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		docs[i] = document{path, string(text)}
	}
	return docs
}

// block is a fenced block of a document.
type block struct {
	path, info, text string
}

var fence = regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```$")

func (d document) blocks() []block {
	var blocks []block
	for _, m := range fence.FindAllStringSubmatch(d.text, -1) {
		blocks = append(blocks, block{d.path, m[1], m[2]})
	}
	return blocks
}

// prose is the text without its blocks.
func (d document) prose() string { return fence.ReplaceAllString(d.text, "") }

// commands are the command lines of shell blocks that begin with a program,
// with continued lines joined and comments cut off.
func commands(blocks []block, program string) [][]string {
	var lines [][]string
	for _, b := range blocks {
		if lang, _, _ := strings.Cut(b.info, " "); lang != "sh" {
			continue
		}
		for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", " ")) {
			line, _, _ = strings.Cut(line, " #")
			if words := split(line); len(words) > 0 && words[0] == program {
				lines = append(lines, words)
			}
		}
	}
	return lines
}

// spoken are the commands within prose: `buddyctl explain web-3`.
func spoken(prose, program string) [][]string {
	var lines [][]string
	for _, m := range inline.FindAllStringSubmatch(prose, -1) {
		if words := split(m[1]); len(words) > 1 && words[0] == program {
			lines = append(lines, words)
		}
	}
	return lines
}

var inline = regexp.MustCompile("`([^`\n]+)`")

// split splits as a shell does where there is nothing but double quotes.
func split(line string) []string {
	var words []string
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 0 {
			words = append(words, strings.Fields(part)...)
		} else {
			words = append(words, part)
		}
	}
	return words
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	for _, d := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(d.prose(), -1) {
			target := m[1]
			if strings.Contains(target, "://") {
				continue
			}
			path, anchor, _ := strings.Cut(target, "#")
			file := filepath.Join(root, filepath.Dir(d.path), path)
			if path == "" {
				file = filepath.Join(root, d.path)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: link to %s: %v", d.path, target, err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(t, file), anchor) {
				t.Errorf("%s: link to %s: no such heading", d.path, target)
			}
		}
	}
}

var heading = regexp.MustCompile(`(?m)^#+ (.+)$`)

// anchors are those that renderers give to headings.
func anchors(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range heading.FindAllStringSubmatch(document{file, string(text)}.prose(), -1) {
		anchor := strings.ToLower(strings.ReplaceAll(m[1], " ", "-"))
		all = append(all, regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(anchor, ""))
	}
	return all
}

// folders are those at the root; a name in backquotes that begins with one of
// them, and a slash, is a path.
var folders = []string{
	"proto/", "coordinator/", "agent/", "router/", "client/", "buddyctl/", "sql/", "internal/", "docs/", "deploy/", "tools/", "bench/", ".ci/",
}

var path = regexp.MustCompile(`^[A-Za-z0-9_./-]+$`)

func TestPathsExist(t *testing.T) {
	t.Parallel()
	found := 0
	for _, d := range documents(t) {
		for _, m := range inline.FindAllStringSubmatch(d.prose(), -1) {
			name := m[1]
			begins := func(folder string) bool { return strings.HasPrefix(name, folder) }
			if !path.MatchString(name) || !slices.ContainsFunc(folders, begins) {
				continue
			}
			found++
			if _, err := os.Stat(filepath.Join(root, name)); err != nil {
				t.Errorf("%s names %s: %v", d.path, name, err)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d paths were found in all documents", found)
	}
}

func TestNothingOfOneMachine(t *testing.T) {
	t.Parallel()
	for _, d := range documents(t) {
		for _, word := range []string{"/tmp/", "/root/", "/home/"} {
			if strings.Contains(d.text, word) {
				t.Errorf("%s names %s", d.path, word)
			}
		}
		if strings.Contains(d.text, "TO"+"DO") {
			t.Errorf("%s is not finished", d.path)
		}
	}
}
