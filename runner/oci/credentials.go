package oci

// Credential is what one registry, or part of it, takes for proof of who asks.
type Credential struct {
	// Server is the registry, with its port if it is not 443, and maybe the beginning of a
	// path, as in "registry.example.org/team".
	Server string
	// Username and Password are empty where one of the tokens is in their place.
	Username, Password string
	// IdentityToken is exchanged for a token of the registry's; RegistryToken is one.
	IdentityToken, RegistryToken string
}

// Keychain is who asks: the longest Server that is the beginning of an image's name counts,
// and of two that are equal the first.
type Keychain []Credential
