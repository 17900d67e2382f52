package store

// Check says what is wrong with the configuration, as Open would, without
// touching the database; its errors name the flag.
func (c Config) Check() error {
	_, err := parseConfig(&c)
	return err
}
