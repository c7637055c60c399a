// Command asmgen writes the assembly of internal/kernel with avo:
//
//	go -C internal/asmgen run . -out ../kernel
//
// Each file has a stub beside it that states what the routines compute. The
// output depends on this source and on the version of avo only, so continuous
// integration regenerates it and compares.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("asmgen: ")
	flags := flag.NewFlagSet("asmgen", flag.ExitOnError) // avo owns the global one
	out := flags.String("out", "", "folder of package kernel")
	if err := flags.Parse(os.Args[1:]); err != nil || *out == "" || flags.NArg() != 0 {
		log.Fatal("usage: go run . -out FOLDER")
	}
	for _, f := range []struct {
		name  string
		write func(*gen)
	}{
		{"tilef32", tilesF32},
		{"tiles8", tilesS8},
		{"tilerequant", tilesRequant},
		{"tilevalues", tilesValues},
		{"tiles16", tilesS16},
		{"stream", streams},
		{"pool", pools},
		{"pack", packs},
		{"block", blocks},
		{"row", rows},
		{"row3", rows3},
		{"row3y", rows3y},
		{"rowgrad", rowGrads},
		{"winograd", winograds},
		{"winograd16", winograds16},
		{"norm", norms},
		{"after", after},
		{"onerow", oneRow},
		{"peak", peaks},
	} {
		if err := writeFile(*out, f.name, f.write); err != nil {
			log.Fatalf("%s: %v", f.name, err)
		}
	}
}

// writeFile runs one generator and writes NAME_amd64.s and its stubs.
func writeFile(dir, name string, write func(*gen)) error {
	g := &gen{Context: build.NewContext()}
	g.ConstraintExpr("amd64")
	write(g)
	file, err := g.Result()
	if err != nil {
		return err
	}
	if err := pass.Compile.Execute(file); err != nil {
		return err
	}
	cfg := printer.Config{Name: "asmgen", Argv: []string{"go", "-C", "internal/asmgen", "run", ".", "-out", "../kernel"}, Pkg: "kernel"}
	for _, o := range []struct {
		file string
		p    printer.Printer
	}{
		{name + "_amd64.s", printer.NewGoAsm(cfg)},
		{name + "_stubs_amd64.go", printer.NewStubs(cfg)},
	} {
		text, err := o.p.Print(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, o.file), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// gen is an avo context with the few words all generators share.
type gen struct {
	*build.Context
	wide bool // zmm rather than ymm
}

// begin starts a function.
func (g *gen) begin(name, signature string, doc ...string) {
	g.Function(name)
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr(signature)
	g.Pragma("noescape")
	g.Doc(doc...)
}

// end returns from a function that used vector registers.
func (g *gen) end() {
	g.VZEROUPPER()
	g.RET()
}

// arg loads an integer or pointer argument into a register.
func (g *gen) arg(name string) reg.GPVirtual {
	r := g.GP64()
	g.Load(g.Param(name), r)
	return r
}

// slot returns the stack address of an argument.
func (g *gen) slot(name string) operand.Mem {
	b, err := g.Param(name).Resolve()
	if err != nil {
		log.Fatalf("argument %s: %v", name, err)
	}
	return b.Addr
}

// vec returns a register of the current width, vecs several.
func (g *gen) vec() reg.VecVirtual {
	if g.wide {
		return g.ZMM()
	}
	return g.YMM()
}

func (g *gen) vecs(n int) []reg.VecVirtual {
	v := make([]reg.VecVirtual, n)
	for i := range v {
		v[i] = g.vec()
	}
	return v
}

// bytes is the size of a register of the current width.
func (g *gen) bytes() int {
	if g.wide {
		return 64
	}
	return 32
}

// zero clears a register.
func (g *gen) zero(v reg.VecVirtual) {
	if g.wide {
		g.VPXORD(v, v, v)
	} else {
		g.VPXOR(v, v, v)
	}
}

// suffix names the current width in function names.
func (g *gen) suffix() string {
	if g.wide {
		return "Z"
	}
	return "Y"
}

// eachWidth runs f for ymm and for zmm.
func (g *gen) eachWidth(f func()) {
	for _, wide := range []bool{false, true} {
		g.wide = wide
		f()
	}
}

func off(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

// imm is the shortest immediate of an addition.
func imm(n int) operand.Op {
	if n >= -128 && n < 128 {
		return operand.I8(int8(n))
	}
	return operand.I32(int32(n))
}

// tileName names a tile routine: kind, register width, rows x vectors.
func (g *gen) tileName(kind string, rows, width int) string {
	return fmt.Sprintf("%s%s%dx%d", kind, g.suffix(), rows, width)
}
