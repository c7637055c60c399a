package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/narrow-ml/narrow/datasets"
)

// dataInfo is a row of data list.
type dataInfo struct {
	Name    string `json:"name"`
	Train   int    `json:"train"`
	Test    int    `json:"test"`
	Bytes   int64  `json:"bytes"`
	Where   string `json:"where"`
	Found   bool   `json:"found"`
	Licence string `json:"licence"`
}

func (a *app) dataCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "data",
		Short: "List, fetch and find data sets",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("narrow data needs list, get NAME or path NAME")
			}
			return usagef("narrow data has no command %q%s", args[0], didYouMean(args[0], []string{"get", "list", "path"}))
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	c.AddCommand(a.dataListCommand(), a.dataGetCommand(), a.dataPathCommand())
	return c
}

func (a *app) dataListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "The known data sets and where they are",
		Args:  arguments(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			infos := datasets.List()
			if asJSON {
				rows := make([]dataInfo, len(infos))
				for i, d := range infos {
					rows[i] = dataInfo{d.Name, d.Train, d.Test, d.Bytes, d.Where, d.Found, d.Licence}
				}
				return a.writeJSON(rows)
			}
			t := newTable("name", ">train", ">test", ">bytes", "where", "licence")
			for _, d := range infos {
				t.add(d.Name, thousands(d.Train), thousands(d.Test), thousands(int(d.Bytes)), d.Where, d.Licence)
			}
			if err := t.write(a.stdout); err != nil {
				return err
			}
			for _, d := range infos {
				if d.Notice != "" {
					fmt.Fprintf(a.stdout, "\n%s:\n%s\n", d.Name, strings.TrimSpace(d.Notice))
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

func (a *app) dataGetCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "get NAME",
		Short: "Make sure a data set is on this machine and is what was published",
		Args:  arguments(1, 1, "the NAME of one data set ("+strings.Join(datasets.Names(), ", ")+")"),
		RunE: func(c *cobra.Command, args []string) error {
			where, err := datasets.Get(c.Context(), args[0], datasets.Options{Dir: dir, Progress: a.downloads()})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.stdout, where)
			return err
		},
	}
	c.Flags().StringVar(&dir, "data", "", "`folder` with one folder per data set (default $NARROW_DATA, then the usual places)")
	return c
}

func (a *app) dataPathCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "path NAME",
		Short: "The folder that holds a data set",
		Args:  arguments(1, 1, "the NAME of one data set ("+strings.Join(datasets.Names(), ", ")+")"),
		RunE: func(_ *cobra.Command, args []string) error {
			where, err := datasets.Path(args[0], datasets.Options{Dir: dir})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.stdout, where)
			return err
		},
	}
	c.Flags().StringVar(&dir, "data", "", "`folder` with one folder per data set (default $NARROW_DATA, then the usual places)")
	return c
}
