// Package unit holds the quantities of the configuration file: sizes, rates and secrets. Each reads the text that people
// write and prints it back.
package unit
