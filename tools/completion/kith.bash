# SPDX-License-Identifier: Apache-2.0
# Completion of the command kith for bash. It asks the command itself for its commands and options
# (kith --complete), so it always knows those of the kith that is installed.

_kith() {
    local program=${COMP_WORDS[0]} current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local -a words=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
    local names command option kind argument help
    COMPREPLY=()
    names=$("$program" --complete 2>/dev/null | cut -f 1) || return
    [[ ${words[0]-} == help ]] && words=("${words[@]:1}")
    if ((${#words[@]} == 0)); then
        mapfile -t COMPREPLY < <(compgen -W "$(cut -d ' ' -f 1 <<<"$names") help --help --version" -- "$current")
        return
    fi
    command=${words[0]}
    if grep -q "^$command " <<<"$names"; then
        if ((${#words[@]} == 1)); then
            mapfile -t COMPREPLY < <(compgen -W "$(sed -n "s/^$command //p" <<<"$names")" -- "$current")
            return
        fi
        command+=" ${words[1]}"
    fi
    local table expects= choices= options=
    # shellcheck disable=SC2086 # a command may be two words
    table=$("$program" --complete $command 2>/dev/null) || return
    while IFS=$'\t' read -r option kind argument help; do
        [[ $option == --* ]] || continue
        options+=" $option"
        if [[ $option == "$previous" ]]; then
            expects=$kind
            [[ $kind == choice ]] && choices=${argument//|/ }
        fi
    done <<<"$table"
    if [[ -n $choices ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$current")
    elif [[ -n $expects && $expects != flag && $expects != file ]]; then
        COMPREPLY=()
    elif [[ $expects != file && ($current == -* || $table != *$'\n\t'file*) ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
    else
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}

complete -F _kith kith
