// Package shell writes commands for shells.
package shell

import "strings"

// Quote is a word as a shell takes it, whatever is in it.
func Quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// Command is a command as one would type it: only the words that need it are quoted.
func Command(words []string) string {
	typed := make([]string, len(words))
	for i, word := range words {
		if typed[i] = word; word == "" || strings.ContainsAny(word, " \t\n'\"\\$&|;<>()*?[]#~`!{}") {
			typed[i] = Quote(word)
		}
	}
	return strings.Join(typed, " ")
}
