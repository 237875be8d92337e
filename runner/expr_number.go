package runner

import (
	"encoding/json"
	"math"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/decls"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/stdlib"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// JSON has one kind of number, CEL has two that do not mix: 2.0 comes out of the canonical
// form as 2. So that the value of a number never decides whether an expression works, the
// operators take one of each kind, and the result is a double. The checker is told nothing
// of it: what it knows the types of it judges as before.

// library is CEL's own, with arithmetic that mixes.
func library() []cel.EnvOption {
	without := &env.LibrarySubset{ExcludeFunctions: []*env.Function{
		{Name: overloads.TypeConvertString, Overloads: []*env.Overload{{ID: overloads.DoubleToString}}},
	}}
	var own []*decls.FunctionDecl
	for _, fn := range stdlib.Functions() {
		op := arithmetic(fn.Name())
		if op == nil {
			continue
		}
		without.ExcludeFunctions = append(without.ExcludeFunctions, &env.Function{Name: fn.Name()})
		opts := []decls.FunctionOpt{decls.SingletonBinaryBinding(op)}
		for _, o := range fn.OverloadDecls() {
			opts = append(opts, decls.Overload(o.ID(), o.ArgTypes(), o.ResultType()))
		}
		if fn.Name() == operators.Modulo {
			opts = append(opts, decls.Overload("modulo_double", []*cel.Type{cel.DoubleType, cel.DoubleType}, cel.DoubleType))
		}
		if f, err := decls.NewFunction(fn.Name(), opts...); err == nil { // else the operator is missed by the first test
			own = append(own, f)
		}
	}
	return []cel.EnvOption{
		cel.StdLib(cel.StdLibSubset(without)),
		cel.FunctionDecls(own...),
		cel.CrossTypeNumericComparisons(true),
		cel.Function(overloads.TypeConvertString, cel.Overload(overloads.DoubleToString,
			[]*cel.Type{cel.DoubleType}, cel.StringType, cel.UnaryBinding(doubleText))),
		cel.Function(overloads.TypeConvertTimestamp, cel.Overload("double_to_timestamp",
			[]*cel.Type{cel.DoubleType}, cel.TimestampType, cel.UnaryBinding(doubleTime))),
	}
}

// arithmetic is what an operator does, nil if it is none of arithmetic.
func arithmetic(operator string) func(a, b ref.Val) ref.Val {
	switch operator {
	case operators.Add:
		return mixing(func(a, b ref.Val) ref.Val {
			if x, ok := a.(traits.Adder); ok {
				return x.Add(b)
			}
			return types.MaybeNoSuchOverloadErr(a)
		})
	case operators.Subtract:
		return mixing(func(a, b ref.Val) ref.Val {
			if x, ok := a.(traits.Subtractor); ok {
				return x.Subtract(b)
			}
			return types.MaybeNoSuchOverloadErr(a)
		})
	case operators.Multiply:
		return mixing(func(a, b ref.Val) ref.Val {
			if x, ok := a.(traits.Multiplier); ok {
				return x.Multiply(b)
			}
			return types.MaybeNoSuchOverloadErr(a)
		})
	case operators.Divide:
		return mixing(divide)
	case operators.Modulo:
		return mixing(modulo)
	}
	return nil
}

// mixing makes doubles of an integer and a double.
func mixing(op func(a, b ref.Val) ref.Val) func(a, b ref.Val) ref.Val {
	return func(a, b ref.Val) ref.Val {
		switch x := a.(type) {
		case types.Int:
			if _, ok := b.(types.Double); ok {
				a = types.Double(x)
			}
		case types.Double:
			if y, ok := b.(types.Int); ok {
				b = types.Double(y)
			}
		}
		return op(a, b)
	}
}

// divide refuses a divisor of 0 for doubles as for integers: JSON has no infinity.
func divide(a, b ref.Val) ref.Val {
	if y, ok := b.(types.Double); ok && y == 0 && a.Type() == types.DoubleType {
		return types.NewErr("division by zero")
	}
	if x, ok := a.(traits.Divider); ok {
		return x.Divide(b)
	}
	return types.MaybeNoSuchOverloadErr(a)
}

// modulo is also one of doubles; the result has the sign of a, as with integers.
func modulo(a, b ref.Val) ref.Val {
	if x, ok := a.(types.Double); ok {
		y, ok := b.(types.Double)
		switch {
		case !ok:
			return types.MaybeNoSuchOverloadErr(b)
		case y == 0:
			return types.NewErr("modulus by zero")
		}
		return types.Double(math.Mod(float64(x), float64(y)))
	}
	if x, ok := a.(traits.Modder); ok {
		return x.Modulo(b)
	}
	return types.MaybeNoSuchOverloadErr(a)
}

// doubleText writes a number as ${ } does: 1000000, not 1e+06.
func doubleText(v ref.Val) ref.Val {
	x, ok := v.(types.Double)
	if !ok {
		return types.MaybeNoSuchOverloadErr(v)
	}
	raw, err := json.Marshal(positiveZero(float64(x)))
	if err != nil {
		return types.NewErr("%v is not a number that JSON has", float64(x))
	}
	return types.String(raw)
}

// doubleTime takes whole seconds.
func doubleTime(v ref.Val) ref.Val {
	x, ok := v.(types.Double)
	if !ok {
		return types.MaybeNoSuchOverloadErr(v)
	}
	if float64(x) != math.Trunc(float64(x)) {
		return types.NewErr("a time is made of whole seconds; int(x) makes them")
	}
	seconds := x.ConvertToType(types.IntType)
	if n, ok := seconds.(types.Int); ok {
		return n.ConvertToType(types.TimestampType)
	}
	return seconds
}

// positiveZero is x without the sign of a zero, which canonical JSON has not.
func positiveZero(x float64) float64 {
	if x == 0 {
		return 0
	}
	return x
}

// declared gives the value of an input the kind that its type says, whatever its value
// looks like in canonical form.
func declared(kind string, v any) any {
	switch x := v.(type) {
	case int64:
		if kind == "number" {
			return float64(x)
		}
	case float64:
		if kind == "integer" && x == math.Trunc(x) && math.Abs(x) < 1<<53 {
			return int64(x)
		}
		return positiveZero(x)
	}
	return v
}
