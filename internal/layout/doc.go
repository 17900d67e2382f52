// Package layout holds the tests that keep the folders apart: what a linter
// checks file by file is checked here for what is linked, and for what pure
// packages may do. It has no code of its own.
package layout
