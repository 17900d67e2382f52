// Package output turns answers into what a person or a script reads: tables
// that fit a terminal, JSON and YAML with the field names of the protos, ages
// such as 12s, and enum values such as active.
//
// It asks nobody anything and decides nothing.
package output
