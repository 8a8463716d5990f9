"""Tables and network trained together: recipe, draws, joint model, run."""
