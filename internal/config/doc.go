// Package config fills a command's flags from the environment and from a
// strict YAML file, so that each setting has one name and one meaning.
//
// The precedence is flag, environment, file, default. The flag --probe-interval
// is the variable PREFIX_PROBE_INTERVAL and the key probe-interval.
package config
