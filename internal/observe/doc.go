// Package observe is how buddyring's processes are seen from outside: their
// log, their metrics and their health over HTTP.
package observe
