package gitlab

// Env looks up environment variables: os.Getenv, or a map's in tests.
type Env func(name string) string
