package ansible

import (
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

const settingPrefix = "nspawn_runner_"

// settingsOf are the settings of a play, or of what imports some.
func settingsOf(play *yaml.Node) map[string]yaml.Node {
	settings := map[string]yaml.Node{}
	if play = follow(play); play.Kind != yaml.MappingNode {
		return settings
	}
	for i := 0; i+1 < len(play.Content); i += 2 {
		if play.Content[i].Value == "vars" {
			calls := 1000
			readSettings(settings, play.Content[i+1], &calls)
		}
	}
	return settings
}

// readSettings collects the settings of a mapping. As in ansible, the last one
// of equal keys counts, and what `<<` merges in counts least. The budget of
// calls keeps an anchor that is merged into itself from going round for ever.
func readSettings(settings map[string]yaml.Node, vars *yaml.Node, calls *int) {
	if *calls--; *calls < 0 {
		return
	}
	vars = follow(vars)
	switch vars.Kind {
	case yaml.SequenceNode: // <<: [*first, *second]: the first one wins
		for _, merged := range slices.Backward(vars.Content) {
			readSettings(settings, merged, calls)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(vars.Content); i += 2 {
			if vars.Content[i].Tag == "!!merge" {
				readSettings(settings, vars.Content[i+1], calls)
			}
		}
		for i := 0; i+1 < len(vars.Content); i += 2 {
			if name := vars.Content[i].Value; strings.HasPrefix(name, settingPrefix) {
				settings[name] = *follow(vars.Content[i+1])
			}
		}
	}
}

// follow goes from an alias to what it stands for.
func follow(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}
