package main

func streams(g *gen) {}
