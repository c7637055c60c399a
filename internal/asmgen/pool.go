package main

func pools(g *gen) {}
