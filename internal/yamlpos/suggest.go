package yamlpos

import (
	"fmt"
	"strings"
)

// Suggest is the word that the writer of another most likely meant, or "".
func Suggest(got string, among []string) string {
	best, least := "", max(1, min(3, len(got)/2))+1
	for _, word := range among {
		if d := distance(strings.ToLower(got), strings.ToLower(word)); d < least {
			best, least = word, d
		}
	}
	return best
}

// DidYouMean is a clause that ends an error text: `; did you mean "origins"?`, or "".
func DidYouMean(got string, among []string) string {
	if word := Suggest(got, among); word != "" {
		return fmt.Sprintf("; did you mean %q?", word)
	}
	return ""
}

// distance is the number of letters to insert, delete, replace or swap with the next to make one word of the other.
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	before, last, row := rows[0], rows[1], rows[2]
	for j := range row {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
