package network

// The addresses of a private network. RFC 7335 sets them aside for what never
// leaves a computer, so that they hide nobody's; every machine has the same.
const (
	ownAddress      = "192.0.0.2"
	gatewayAddress  = "192.0.0.1"
	resolverAddress = "192.0.0.3"
	prefixLength    = "29"
)

// Interface is the name of a machine's interface in a private network.
const Interface = "host0"
