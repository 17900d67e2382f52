//go:build !linux && !darwin

package daemon

import "errors"

const defaultBootIDFile = ""

func systemBootID() (string, error) {
	return "", errors.New("this system does not tell it: give --boot-id-file")
}
