package ansible

import (
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Other YAML files lie beside playbooks: tasks that several of them include, what
// ansible-galaxy shall install, an inventory, secrets, a site.yaml that imports all. Their
// names could be those of images, but no image is to be made of them. What each file is,
// its content says.

// foreign says why ansible cannot run what is in a YAML file, or is empty.
func foreign(root *yaml.Node) string {
	if root.Kind != yaml.SequenceNode {
		return "it is not a list of plays"
	}
	if !slices.ContainsFunc(root.Content, isPlay) {
		return "nothing in its list is a play, which has hosts"
	}
	return ""
}

// isPlay says whether an element of a list is a play or imports some. What it merges in
// could be anything.
func isPlay(element *yaml.Node) bool {
	return hasKey(element, "hosts", "<<") || isImport(element) || len(settingsOf(element)) > 0
}

// isImport says whether an element of a list imports the plays of another file.
func isImport(element *yaml.Node) bool {
	return hasKey(element, "import_playbook", "ansible.builtin.import_playbook", "ansible.legacy.import_playbook")
}

// isEncrypted says whether the root of a YAML file is what ansible-vault makes.
func isEncrypted(root *yaml.Node) bool { return strings.HasPrefix(root.Value, "$ANSIBLE_VAULT;") }

// hasKey says whether a node is a mapping with one of these keys.
func hasKey(node *yaml.Node, keys ...string) bool {
	node = follow(node)
	if node.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if slices.Contains(keys, node.Content[i].Value) {
			return true
		}
	}
	return false
}
