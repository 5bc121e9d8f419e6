// Package size words amounts of memory and disk for people.
package size

import "fmt"

// MiB words bytes in units of 1024 × 1024 bytes, like the amounts of the configuration: 20G there is
// 20480 MiB. It rounds down, but only nothing is 0 MiB.
func MiB[T int | int64 | uint64](bytes T) string {
	if bytes > 0 {
		bytes = max(bytes>>20, 1)
	}
	return fmt.Sprintf("%d MiB", bytes)
}
