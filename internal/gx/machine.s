// Allows machine.go to declare a function without a body.
