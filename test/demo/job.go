package demo

import _ "embed"

//go:embed hello.yaml
var helloJob string
