from qtable.cli import main

main()
